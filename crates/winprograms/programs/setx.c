/* setx: keeps a variable in the environment of later processes. */
#include "rt.h"

static void usage(void)
{
    print_text(L"SETX variable value [/M]\n"
               L"SETX variable /K path [/M]\n\n"
               L"    /M    For the whole system, not only for this user.\n"
               L"    /K    Takes the value from the registry, as in HKLM\\Software\\Key\\Value.\n\n"
               L"Later processes get the value; the environment of this one stays as it is.\n");
}

static WCHAR *from_registry(const WCHAR *path)
{
    static const struct {
        const WCHAR *name;
        HKEY root;
    } roots[] = {
        { L"HKEY_LOCAL_MACHINE\\", HKEY_LOCAL_MACHINE },
        { L"HKLM\\", HKEY_LOCAL_MACHINE },
        { L"HKEY_CURRENT_USER\\", HKEY_CURRENT_USER },
        { L"HKCU\\", HKEY_CURRENT_USER },
    };
    for (unsigned i = 0; i < 4; i++) {
        size_t n = wcslen(roots[i].name);
        if (_wcsnicmp(path, roots[i].name, n))
            continue;
        WCHAR *key = copy_text(path + n), *name = wcsrchr(key, '\\');
        if (!name)
            return NULL;
        *name++ = 0;
        HKEY opened;
        DWORD type, size = 65534;
        WCHAR *data = allocate(65536);
        if (RegOpenKeyExW(roots[i].root, key, 0, KEY_READ, &opened)
            || RegQueryValueExW(opened, name, NULL, &type, (BYTE *)data, &size))
            return NULL;
        if (type == REG_DWORD)
            return format_text(L"%lu", *(DWORD *)data);
        return type == REG_SZ || type == REG_EXPAND_SZ ? data : NULL;
    }
    return NULL;
}

int program(int argc, WCHAR **argv)
{
    const WCHAR *name = NULL, *value = NULL, *source = NULL;
    BOOL machine = FALSE;
    for (int i = 1; i < argc; i++) {
        if (is_option(argv[i], L"?")) {
            usage();
            return 0;
        } else if (is_option(argv[i], L"m")) {
            machine = TRUE;
        } else if (is_option(argv[i], L"k") && i + 1 < argc) {
            source = argv[++i];
        } else if (is_option(argv[i], L"s") || is_option(argv[i], L"u") || is_option(argv[i], L"p")
                   || is_option(argv[i], L"f")) {
            complain(L"ERROR: The option %s is not supported: only this container's environment can "
                     L"be set, and only to a value or one of the registry.\n",
                     argv[i]);
            return 1;
        } else if (!name) {
            name = argv[i];
        } else if (!value) {
            value = argv[i];
        } else {
            return failed(L"Invalid syntax. Default option is not allowed more than '2' time(s).\n"
                          L"Type \"SETX /?\" for usage.");
        }
    }
    if (source && !(value = from_registry(source)))
        return failed(L"The specified registry key or value was not found.");
    if (!name || !value)
        return failed(L"Invalid syntax.\nType \"SETX /?\" for usage.");
    if (wcslen(value) > 1024) {
        complain(L"WARNING: The data being saved is truncated to 1024 characters.\n");
        value = copy_text(value);
        ((WCHAR *)value)[1024] = 0;
    }
    HKEY key;
    LONG error = RegCreateKeyExW(
        machine ? HKEY_LOCAL_MACHINE : HKEY_CURRENT_USER,
        machine ? L"System\\CurrentControlSet\\Control\\Session Manager\\Environment" : L"Environment",
        0, NULL, 0, KEY_SET_VALUE, NULL, &key, NULL);
    if (!error) {
        const WCHAR *percent = wcschr(value, '%');
        DWORD type = percent && wcschr(percent + 1, '%') ? REG_EXPAND_SZ : REG_SZ;
        error = RegSetValueExW(key, name, 0, type, (const BYTE *)value,
                               (wcslen(value) + 1) * sizeof(WCHAR));
    }
    if (error)
        return failed(error_text(error));
    print_text(L"\nSUCCESS: Specified value was saved.\n");
    return 0;
}
