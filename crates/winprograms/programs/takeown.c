/* takeown: makes files one's own. Everything in a container belongs to the one account that Linux
 * knows, so what is left is to find the files. */
#include "common/walk.h"

static WCHAR owner[300];
static BOOL below;

static void usage(void)
{
    print_text(L"TAKEOWN /F file [/A] [/R [/D Y|N]]\n\n"
               L"    /F file    The file or directory; * and ? may be used.\n"
               L"    /A         Gives it to the administrators' group.\n"
               L"    /R         Also what lies below a directory.\n"
               L"    /D answer  Is taken and not needed: access is never refused.\n");
}

static int take(const WCHAR *path, DWORD attributes)
{
    print(L"\nSUCCESS: The file (or folder): \"%s\" now owned by %s.\n", path, owner);
    if (!below || !is_own_directory(attributes))
        return 0;
    struct entries e = entries_of(path);
    if (e.find == INVALID_HANDLE_VALUE)
        return failed(error_text(GetLastError()));
    int result = 0;
    while (next_entry(&e))
        result |= take(e.path, e.data.dwFileAttributes);
    return result;
}

int program(int argc, WCHAR **argv)
{
    const WCHAR *file = NULL;
    BOOL group = FALSE;
    for (int i = 1; i < argc; i++) {
        if (is_option(argv[i], L"?")) {
            usage();
            return 0;
        } else if (is_option(argv[i], L"f") && i + 1 < argc) {
            file = argv[++i];
        } else if (is_option(argv[i], L"a")) {
            group = TRUE;
        } else if (is_option(argv[i], L"r")) {
            below = TRUE;
        } else if (is_option(argv[i], L"skipsl")) {
            continue;
        } else if (is_option(argv[i], L"d") && i + 1 < argc) {
            i++;
        } else {
            complain(L"ERROR: Invalid argument/option - '%s'.\nType \"TAKEOWN /?\" for usage.\n",
                     argv[i]);
            return 1;
        }
    }
    if (!file)
        return failed(L"Invalid syntax. Mandatory option '/F' is missing.\n"
                      L"Type \"TAKEOWN /?\" for usage.");
    WCHAR user[257] = L"";
    GetEnvironmentVariableW(L"USERNAME", user, 256);
    if (group)
        wcscpy(owner, L"the administrators group");
    else
        _snwprintf(owner, 299, L"user: \"User Manager\\%s\"", user);
    if (!has_wildcards(file)) {
        DWORD attributes = GetFileAttributesW(file);
        if (attributes == INVALID_FILE_ATTRIBUTES)
            return failed(error_text(GetLastError()));
        return take(file, attributes);
    }
    struct entries e = entries_like(file);
    if (e.find == INVALID_HANDLE_VALUE)
        return failed(error_text(GetLastError()));
    int result = 0;
    while (next_entry(&e))
        result |= take(e.path, e.data.dwFileAttributes);
    return result;
}
