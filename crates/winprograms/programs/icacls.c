/*
 * icacls: access lists. In a container on Linux nobody enforces them, so changes are checked for
 * form and for the files' existence, and then only said to have no effect.
 */
#include "common/walk.h"

static ULONGLONG good, bad;
static BOOL below, quiet, going_on, showing;

static void usage(void)
{
    print_text(L"ICACLS name [/grant[:r] sid:perm...] [/deny sid:perm...] [/remove[:g|:d] sid...]\n"
               L"            [/inheritance:e|d|r] [/setowner user] [/reset] [/T] [/C] [/L] [/Q]\n\n"
               L"Access lists are not enforced in this container. Changes are accepted and have no\n"
               L"effect; /save, /restore, /findsid, /verify and /substitute are not supported.\n");
}

static void one(const WCHAR *path)
{
    good++;
    if (showing)
        print(L"%s NT AUTHORITY\\SYSTEM:(F)\n%*s BUILTIN\\Administrators:(F)\n%*s BUILTIN\\Users:(F)\n\n",
              path, (int)wcslen(path), L"", (int)wcslen(path), L"");
    else if (!quiet)
        print(L"processed file: %s\n", path);
}

static void walk(const WCHAR *path)
{
    one(path);
    if (!below || !is_own_directory(GetFileAttributesW(path)))
        return;
    for (struct entries e = entries_of(path); next_entry(&e);)
        walk(e.path);
}

static int invalid(const WCHAR *what)
{
    complain(L"Invalid parameter \"%s\"\n", what);
    return 87;
}

int program(int argc, WCHAR **argv)
{
    static const WCHAR *changes[] = { L"grant", L"deny", L"remove", L"setowner", L"setintegritylevel",
                                      L"inheritance", L"reset" };
    const WCHAR *name = NULL;
    BOOL changing = FALSE;
    for (int i = 1; i < argc; i++) {
        const WCHAR *a = argv[i];
        if (is_option(a, L"?")) {
            usage();
            return 0;
        } else if (*a != '/' && *a != '-') {
            if (name)
                return invalid(a);
            name = a;
        } else if (is_option(a, L"t")) {
            below = TRUE;
        } else if (is_option(a, L"c")) {
            going_on = TRUE;
        } else if (is_option(a, L"q")) {
            quiet = TRUE;
        } else if (!is_option(a, L"l")) {
            unsigned k = 0;
            while (k < 7 && !is_option(a, changes[k]) && !option_value(a, changes[k]))
                k++;
            if (k == 7) {
                complain(L"%s is not a parameter or not supported: access lists are not enforced in this "
                         L"container\n", a);
                return 87;
            }
            changing = TRUE;
            BOOL first = TRUE;
            while (k < 5 && i + 1 < argc && argv[i + 1][0] != '/') {
                const WCHAR *given = argv[++i];
                if (k < 2 && !wcschr(given, ':'))
                    return invalid(given);
                first = FALSE;
            }
            if (k < 5 && first)
                return invalid(a);
        }
    }
    if (!name) {
        usage();
        return 87;
    }
    showing = !changing;
    if (has_wildcards(name)) {
        for (struct entries e = entries_like(name); next_entry(&e);)
            walk(e.path);
    } else if (GetFileAttributesW(name) == INVALID_FILE_ATTRIBUTES) {
        complain(L"%s: %s\n", name, error_text(GetLastError()));
        bad++;
    } else {
        walk(name);
    }
    print(L"Successfully processed %I64u files; Failed processing %I64u files\n", good, bad);
    if (changing && good && !quiet)
        complain(L"icacls: access lists are not enforced in this container; nothing was changed\n");
    return bad ? 2 : 0;
}
