/* forfiles: runs a command for each file that fits. */
#include "common/walk.h"

static const WCHAR *mask = L"*", *command = L"cmd /c echo @file";
static BOOL below, dated, later;
static ULONGLONG limit; /* a file time */
static unsigned ran;
static int result;

static WCHAR *quoted(const WCHAR *text)
{
    return format_text(L"\"%s\"", text);
}

static void run(const WCHAR *root, const WCHAR *directory, const WIN32_FIND_DATAW *data)
{
    WCHAR *path = join(directory, data->cFileName), *stem = copy_text(data->cFileName), *dot;
    FILETIME local;
    SYSTEMTIME t;
    const WCHAR *ending = L"";
    if ((dot = wcsrchr(stem, '.'))) {
        *dot = 0;
        ending = dot + 1;
    }
    FileTimeToLocalFileTime(&data->ftLastWriteTime, &local);
    FileTimeToSystemTime(&local, &t);
    const struct {
        const WCHAR *name;
        WCHAR *value;
    } words[] = {
        { L"@fname", quoted(stem) },
        { L"@file", quoted(data->cFileName) },
        { L"@fsize", format_text(L"%I64u", file_size(data)) },
        { L"@fdate", format_text(L"%u/%u/%u", t.wMonth, t.wDay, t.wYear) },
        { L"@ftime", format_text(L"%u:%02u:%02u", t.wHour, t.wMinute, t.wSecond) },
        { L"@path", quoted(path) },
        { L"@relpath", format_text(L"\".\\%s\"", path + wcslen(root) + (root[wcslen(root) - 1] != '\\')) },
        { L"@isdir", copy_text(is_directory(data->dwFileAttributes) ? L"TRUE" : L"FALSE") },
        { L"@ext", quoted(ending) },
    };
    enum { ROOM = 32768 };
    WCHAR *line = allocate(ROOM * sizeof(WCHAR));
    size_t n = 0;
    for (const WCHAR *c = command; *c && n < ROOM - 1;) {
        unsigned k = 0, count = sizeof(words) / sizeof(*words);
        while (k < count && _wcsnicmp(c, words[k].name, wcslen(words[k].name)))
            k++;
        if (k < count) {
            for (const WCHAR *v = words[k].value; *v && n < ROOM - 1; v++)
                line[n++] = *v;
            c += wcslen(words[k].name);
        } else if (c[0] == '0' && (c[1] | 32) == 'x' && c[2] && c[3]) {
            WCHAR hex[3] = { c[2], c[3], 0 };
            line[n++] = (WCHAR)wcstoul(hex, NULL, 16);
            c += 4;
        } else {
            line[n++] = *c++;
        }
    }
    STARTUPINFOW startup = { .cb = sizeof(startup) };
    PROCESS_INFORMATION process;
    ran++;
    if (!CreateProcessW(NULL, line, NULL, NULL, TRUE, 0, NULL, directory, &startup, &process)) {
        result = failed(error_text(GetLastError()));
    } else {
        DWORD code;
        WaitForSingleObject(process.hProcess, INFINITE);
        GetExitCodeProcess(process.hProcess, &code);
        if (code)
            result = (int)code;
        CloseHandle(process.hThread);
        CloseHandle(process.hProcess);
    }
    release(line);
    release(path);
    release(stem);
    for (unsigned k = 0; k < sizeof(words) / sizeof(*words); k++)
        release(words[k].value);
}

static void walk(const WCHAR *root, const WCHAR *directory)
{
    for (struct entries e = entries_of(directory); next_entry(&e);) {
        ULONGLONG time = file_time(&e.data.ftLastWriteTime);
        if (matches(e.data.cFileName, mask) && (!dated || (later ? time >= limit : time <= limit)))
            run(root, directory, &e.data);
        if (below && is_own_directory(e.data.dwFileAttributes))
            walk(root, e.path);
    }
}

/* [+|-]days or [+|-]MM/dd/yyyy */
static BOOL parse_date(const WCHAR *text)
{
    ULONGLONG days;
    const ULONGLONG day = 864000000000ull;
    BOOL minus = *text == '-';
    if (*text == '+' || *text == '-')
        text++;
    later = !minus;
    dated = TRUE;
    if (parse_number(text, &days) && days <= 32768) {
        FILETIME now;
        GetSystemTimeAsFileTime(&now);
        ULONGLONG n = file_time(&now);
        limit = minus ? n - days * day : n + days * day;
        return TRUE;
    }
    WCHAR *end;
    SYSTEMTIME t = { 0 };
    FILETIME local, file;
    t.wMonth = (WORD)wcstoul(text, &end, 10);
    if (*end++ != '/')
        return FALSE;
    t.wDay = (WORD)wcstoul(end, &end, 10);
    if (*end++ != '/')
        return FALSE;
    t.wYear = (WORD)wcstoul(end, &end, 10);
    if (*end || !SystemTimeToFileTime(&t, &local) || !LocalFileTimeToFileTime(&local, &file))
        return FALSE;
    limit = file_time(&file) + (minus ? day - 1 : 0);
    return TRUE;
}

int program(int argc, WCHAR **argv)
{
    const WCHAR *path = L".";
    for (int i = 1; i < argc; i++) {
        if (is_option(argv[i], L"?")) {
            print_text(L"FORFILES [/P path] [/M mask] [/S] [/C command] [/D [+|-]date|days]\n\n"
                       L"    /P path      Where to begin.          /M mask   Which names, * without it.\n"
                       L"    /S           Below it as well.        /D date   Changed since (+) or before (-).\n"
                       L"    /C command   \"cmd /c echo @file\" without it; @file @fname @ext @path @relpath\n"
                       L"                 @isdir @fsize @fdate @ftime are replaced, and 0xHH.\n");
            return 0;
        } else if (is_option(argv[i], L"s")) {
            below = TRUE;
        } else if (is_option(argv[i], L"p") && i + 1 < argc) {
            path = argv[++i];
        } else if (is_option(argv[i], L"m") && i + 1 < argc) {
            mask = argv[++i];
        } else if (is_option(argv[i], L"c") && i + 1 < argc) {
            command = argv[++i];
        } else if (is_option(argv[i], L"d") && i + 1 < argc && parse_date(argv[i + 1])) {
            i++;
        } else {
            complain(L"ERROR: Invalid argument/option - '%s'.\nType \"FORFILES /?\" for usage.\n", argv[i]);
            return 1;
        }
    }
    static WCHAR root[4096];
    GetFullPathNameW(path, 4095, root, NULL);
    DWORD attributes = GetFileAttributesW(root);
    if (attributes == INVALID_FILE_ATTRIBUTES || !is_directory(attributes))
        return failed(L"The specified directory does not exist.");
    walk(root, root);
    if (!ran) {
        complain(L"ERROR: No files found with the specified search criteria.\n");
        return 1;
    }
    return result;
}
