#include "rt.h"

WCHAR NTAPI RtlDowncaseUnicodeChar(WCHAR);

static int split_arguments(const WCHAR *c, WCHAR *text, WCHAR **arguments)
{
    int count = 0;
    for (BOOL first = TRUE; *c || first; first = FALSE) {
        while (*c == ' ' || *c == '\t')
            c++;
        if (!*c && !first)
            break;
        if (arguments)
            arguments[count] = text;
        count++;
        BOOL quoted = FALSE;
        while (*c && (quoted || (*c != ' ' && *c != '\t'))) {
            unsigned slashes = 0;
            while (!first && *c == '\\')
                slashes++, c++;
            if (*c == '"') {
                for (unsigned i = 0; i < slashes / 2; i++)
                    *text++ = '\\';
                if (slashes % 2) {
                    *text++ = '"';
                } else if (quoted && c[1] == '"' && !first) {
                    *text++ = '"';
                    c++;
                } else {
                    quoted = !quoted;
                }
                c++;
                continue;
            }
            while (slashes--)
                *text++ = '\\';
            if (*c && (quoted || (*c != ' ' && *c != '\t')))
                *text++ = *c++;
        }
        *text++ = 0;
    }
    return count;
}

void start(void)
{
    const WCHAR *line = GetCommandLineW();
    size_t size = (wcslen(line) + 2) * 2 * sizeof(WCHAR);
    WCHAR *text = allocate(size);
    int count = split_arguments(line, text, NULL);
    WCHAR **arguments = allocate((count + 1) * sizeof(WCHAR *));
    split_arguments(line, text, arguments);
    ExitProcess(program(count, arguments));
}

void write_bytes(HANDLE stream, const void *data, DWORD size)
{
    const char *at = data;
    DWORD done;
    while (size && WriteFile(stream, at, size, &done, NULL) && done) {
        at += done;
        size -= done;
    }
}

static void put(HANDLE stream, const WCHAR *text, size_t length)
{
    DWORD mode, done;
    if (GetConsoleMode(stream, &mode)) {
        WriteConsoleW(stream, text, length, &done, NULL);
        return;
    }
    UINT page = GetConsoleOutputCP();
    if (!page)
        page = GetOEMCP();
    int size = WideCharToMultiByte(page, 0, text, length, NULL, 0, NULL, NULL);
    char *bytes = allocate(size + 1);
    WideCharToMultiByte(page, 0, text, length, bytes, size, NULL, NULL);
    write_bytes(stream, bytes, size);
    release(bytes);
}

static void put_lines(DWORD which, const WCHAR *text)
{
    HANDLE stream = GetStdHandle(which);
    size_t lines = 0, length = 0;
    for (const WCHAR *c = text; *c; c++, length++)
        lines += *c == '\n';
    WCHAR *copy = allocate((length + lines + 1) * sizeof(WCHAR)), *to = copy;
    for (const WCHAR *c = text; *c; c++) {
        if (*c == '\n' && (c == text || c[-1] != '\r'))
            *to++ = '\r';
        *to++ = *c;
    }
    put(stream, copy, to - copy);
    release(copy);
}

static WCHAR *format_list(const WCHAR *format, va_list list)
{
    for (size_t size = 512;; size *= 2) {
        WCHAR *text = allocate(size * sizeof(WCHAR));
        va_list again;
        va_copy(again, list);
        int length = _vsnwprintf(text, size - 1, format, again);
        va_end(again);
        if ((length >= 0 && (size_t)length < size - 1) || size > 1 << 20)
            return text;
        release(text);
    }
}

static void put_format(DWORD which, const WCHAR *format, va_list list)
{
    WCHAR *text = format_list(format, list);
    put_lines(which, text);
    release(text);
}

void print(const WCHAR *format, ...)
{
    va_list list;
    va_start(list, format);
    put_format(STD_OUTPUT_HANDLE, format, list);
    va_end(list);
}

void complain(const WCHAR *format, ...)
{
    va_list list;
    va_start(list, format);
    put_format(STD_ERROR_HANDLE, format, list);
    va_end(list);
}

void print_text(const WCHAR *text)
{
    put_lines(STD_OUTPUT_HANDLE, text);
}

WCHAR *format_text(const WCHAR *format, ...)
{
    va_list list;
    va_start(list, format);
    WCHAR *text = format_list(format, list);
    va_end(list);
    return text;
}

/* What Windows says in English; Wine has other words for many. */
static const WCHAR *known_error(DWORD code)
{
    switch (code) {
    case ERROR_FILE_NOT_FOUND: return L"The system cannot find the file specified.";
    case ERROR_PATH_NOT_FOUND: return L"The system cannot find the path specified.";
    case ERROR_ACCESS_DENIED: return L"Access is denied.";
    case ERROR_SHARING_VIOLATION:
        return L"The process cannot access the file because it is being used by another process.";
    case ERROR_FILE_EXISTS: return L"The file exists.";
    case ERROR_INVALID_PARAMETER: return L"The parameter is incorrect.";
    case ERROR_DISK_FULL: return L"There is not enough space on the disk.";
    case ERROR_INVALID_NAME:
        return L"The filename, directory name, or volume label syntax is incorrect.";
    case ERROR_DIR_NOT_EMPTY: return L"The directory is not empty.";
    case ERROR_ALREADY_EXISTS: return L"Cannot create a file when that file already exists.";
    case ERROR_DIRECTORY: return L"The directory name is invalid.";
    case ERROR_WRITE_PROTECT: return L"The media is write protected.";
    case ERROR_NOT_SUPPORTED: return L"The request is not supported.";
    case ERROR_SERVICE_ALREADY_RUNNING: return L"An instance of the service is already running.";
    case ERROR_SERVICE_DOES_NOT_EXIST:
        return L"The specified service does not exist as an installed service.";
    case ERROR_SERVICE_NOT_ACTIVE: return L"The service has not been started.";
    case ERROR_SERVICE_EXISTS: return L"The specified service already exists.";
    case ERROR_SERVICE_REQUEST_TIMEOUT:
        return L"The service did not respond to the start or control request in a timely fashion.";
    case ERROR_SERVICE_DISABLED:
        return L"The service cannot be started, either because it is disabled or because it has no "
               L"enabled devices associated with it.";
    case ERROR_SERVICE_CANNOT_ACCEPT_CTRL:
        return L"The service cannot accept control messages at this time.";
    case ERROR_INVALID_SERVICE_CONTROL:
        return L"The requested control is not valid for this service.";
    default: return NULL;
    }
}

const WCHAR *error_text(DWORD code)
{
    static WCHAR text[512];
    const WCHAR *known = known_error(code);
    if (known)
        return known;
    DWORD n = FormatMessageW(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL, code,
                             0, text, 511, NULL);
    while (n && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' '))
        n--;
    text[n] = 0;
    if (!n)
        _snwprintf(text, 511, L"Error %lu.", code);
    return text;
}

int failed(const WCHAR *what)
{
    complain(L"ERROR: %s\n", what);
    return 1;
}

WCHAR lower(WCHAR c)
{
    return RtlDowncaseUnicodeChar(c);
}

BOOL same(const WCHAR *a, const WCHAR *b)
{
    return _wcsicmp(a, b) == 0;
}

BOOL is_option(const WCHAR *argument, const WCHAR *name)
{
    return (*argument == '/' || *argument == '-') && same(argument + 1, name);
}

const WCHAR *option_value(const WCHAR *argument, const WCHAR *name)
{
    size_t n = wcslen(name);
    if ((*argument != '/' && *argument != '-') || _wcsnicmp(argument + 1, name, n) != 0
        || argument[n + 1] != ':')
        return NULL;
    return argument + n + 2;
}

BOOL parse_number(const WCHAR *text, ULONGLONG *number)
{
    *number = 0;
    if (!*text)
        return FALSE;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || *number > (1ull << 60) / 10)
            return FALSE;
        *number = *number * 10 + (*text - '0');
    }
    return TRUE;
}

BOOL matches(const WCHAR *name, const WCHAR *pattern)
{
    const WCHAR *star = NULL, *back = NULL;
    if (!wcscmp(pattern, L"*.*"))
        return TRUE;
    while (*name) {
        if (*pattern == '*') {
            star = ++pattern;
            back = name;
        } else if (*pattern && (*pattern == '?' || lower(*pattern) == lower(*name))) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star;
            name = ++back;
        } else {
            return FALSE;
        }
    }
    while (*pattern == '*' || (pattern[0] == '.' && !pattern[1]))
        pattern++;
    return !*pattern;
}

BOOL is_dots(const WCHAR *name)
{
    return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

void *allocate(size_t size)
{
    void *memory = HeapAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, size);
    if (!memory)
        ExitProcess(ERROR_NOT_ENOUGH_MEMORY);
    return memory;
}

void release(void *memory)
{
    if (memory)
        HeapFree(GetProcessHeap(), 0, memory);
}

WCHAR *copy_text(const WCHAR *text)
{
    size_t size = (wcslen(text) + 1) * sizeof(WCHAR);
    return memcpy(allocate(size), text, size);
}

WCHAR *join(const WCHAR *directory, const WCHAR *name)
{
    size_t n = wcslen(directory);
    WCHAR *path = allocate((n + wcslen(name) + 2) * sizeof(WCHAR));
    wcscpy(path, directory);
    if (n && path[n - 1] != '\\' && path[n - 1] != '/' && path[n - 1] != ':')
        path[n++] = '\\';
    wcscpy(path + n, name);
    return path;
}

WCHAR *wide_text(const char *bytes, int size, UINT code_page)
{
    int n = MultiByteToWideChar(code_page, 0, bytes, size, NULL, 0);
    WCHAR *text = allocate((n + 1) * sizeof(WCHAR));
    MultiByteToWideChar(code_page, 0, bytes, size, text, n);
    return text;
}
