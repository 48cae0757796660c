/* where: finds files along PATH, along another variable, or below a directory. */
#include "common/walk.h"

static BOOL quiet, quoted, times;
static unsigned found;

static void usage(void)
{
    print_text(L"WHERE [/R dir] [/Q] [/F] [/T] pattern...\n\n"
               L"    /R dir     Searches the directory and those below it.\n"
               L"    /Q         Prints nothing: the exit code tells.\n"
               L"    /F         Prints names in double quotes.\n"
               L"    /T         Prints size, date and time of each file.\n"
               L"    pattern    A name with * and ?, or $variable:name, or dir:name.\n"
               L"               Without an ending those of PATHEXT are tried as well.\n");
}

static void report(const WCHAR *path, const WIN32_FIND_DATAW *data)
{
    found++;
    if (quiet)
        return;
    if (times) {
        FILETIME local;
        SYSTEMTIME t;
        FileTimeToLocalFileTime(&data->ftLastWriteTime, &local);
        FileTimeToSystemTime(&local, &t);
        ULONGLONG size = file_size(data);
        print(L"%10I64u   %2u/%2u/%u  %2u:%02u:%02u  ", size, t.wMonth, t.wDay, t.wYear, t.wHour,
              t.wMinute, t.wSecond);
    }
    print(quoted ? L"\"%s\"\n" : L"%s\n", path);
}

static void search(const WCHAR *directory, const WCHAR *pattern)
{
    for (struct entries e = entries_of(directory); next_entry(&e);) {
        if (is_directory(e.data.dwFileAttributes))
            continue;
        BOOL hit = matches(e.data.cFileName, pattern);
        if (!hit && !wcschr(pattern, '.')) {
            WCHAR endings[256] = L".COM;.EXE;.BAT;.CMD", *next = endings;
            GetEnvironmentVariableW(L"PATHEXT", endings, 255);
            while (!hit && next) {
                WCHAR *ending = next, *full;
                if ((next = wcschr(ending, ';')))
                    *next++ = 0;
                if (!*ending)
                    continue;
                full = format_text(L"%s%s", pattern, ending);
                hit = matches(e.data.cFileName, full);
                release(full);
            }
        }
        if (hit)
            report(e.path, &e.data);
    }
}

static void search_below(const WCHAR *directory, const WCHAR *pattern)
{
    search(directory, pattern);
    for (struct entries e = entries_of(directory); next_entry(&e);)
        if (is_own_directory(e.data.dwFileAttributes))
            search_below(e.path, pattern);
}

/* Each directory of a list like PATH; names that stand twice are searched once. */
static void search_list(WCHAR *list, const WCHAR *pattern)
{
    for (WCHAR *directory = list, *next; directory && *directory; directory = next) {
        if ((next = wcschr(directory, ';')))
            *next++ = 0;
        size_t n = wcslen(directory);
        if (n > 1 && *directory == '"' && directory[n - 1] == '"') {
            directory[n - 1] = 0;
            directory++;
        }
        BOOL earlier = !*directory;
        for (WCHAR *other = list; !earlier && other < directory; other += wcslen(other) + 1)
            earlier = same(other, directory);
        if (!earlier)
            search(directory, pattern);
    }
}

int program(int argc, WCHAR **argv)
{
    const WCHAR *root = NULL;
    int patterns = 0;
    for (int i = 1; i < argc; i++) {
        if (is_option(argv[i], L"?")) {
            usage();
            return 0;
        } else if (is_option(argv[i], L"q")) {
            quiet = TRUE;
        } else if (is_option(argv[i], L"f")) {
            quoted = TRUE;
        } else if (is_option(argv[i], L"t")) {
            times = TRUE;
        } else if (is_option(argv[i], L"r") && i + 1 < argc) {
            root = argv[++i];
        } else if (*argv[i] == '/') {
            complain(L"ERROR: Invalid argument or option - '%s'.\nType \"WHERE /?\" for usage help.\n",
                     argv[i]);
            return 2;
        } else {
            argv[patterns++] = argv[i];
        }
    }
    if (!patterns) {
        usage();
        return 2;
    }
    int result = 0;
    for (int i = 0; i < patterns; i++) {
        WCHAR *list = allocate(65536 * sizeof(WCHAR)), current[MAX_PATH];
        const WCHAR *pattern = argv[i];
        WCHAR *colon = wcsrchr(pattern, ':');
        unsigned before = found;
        GetCurrentDirectoryW(MAX_PATH, current);
        if (root) {
            search_below(root, pattern);
        } else if (*pattern == '$' && colon) {
            *colon = 0;
            if (!GetEnvironmentVariableW(pattern + 1, list, 65535)) {
                complain(L"ERROR: The environment variable \"%s\" was not found.\n", pattern + 1);
                return 2;
            }
            search_list(list, colon + 1);
        } else if (colon) {
            *colon = 0;
            _snwprintf(list, 65535, L"%s", pattern);
            search_list(list, colon + 1);
        } else {
            int n = _snwprintf(list, 4096, L"%s;", current);
            GetEnvironmentVariableW(L"PATH", list + n, 65535 - n);
            search_list(list, pattern);
        }
        release(list);
        if (found == before) {
            result = 1;
            if (!quiet)
                complain(L"INFO: Could not find files for the given pattern(s).\n");
        }
    }
    return result;
}
