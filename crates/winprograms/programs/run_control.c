/* The files by which silo-run is told what to do and tells what became of it. */
#include "run.h"

enum { START_LIMIT = 8 << 20 };

static WCHAR directory[96]; /* \\?\unix\prefix\.silo\<name>\ */
static unsigned directory_length;

unsigned length(const WCHAR *text)
{
    unsigned n = 0;
    while (text[n])
        n++;
    return n;
}

BOOL key_is(const char *record, const char *key, const char **value)
{
    while (*key && *record == *key)
        record++, key++;
    if (*key || *record != '=')
        return FALSE;
    *value = record + 1;
    return TRUE;
}

BOOL text_is(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

BOOL ends_with(const WCHAR *text, unsigned n, const WCHAR *end)
{
    unsigned m = length(end);
    if (n < m)
        return FALSE;
    for (unsigned i = 0; i < m; i++) {
        WCHAR c = text[n - m + i];
        if ((c >= 'A' && c <= 'Z' ? c + 32 : c) != end[i])
            return FALSE;
    }
    return TRUE;
}

static WCHAR *wide(const char *text)
{
    int n = MultiByteToWideChar(CP_UTF8, 0, text, -1, NULL, 0);
    WCHAR *result = HeapAlloc(heap, 0, 2 * n + 2);
    if (result)
        MultiByteToWideChar(CP_UTF8, 0, text, -1, result, n);
    return result;
}

static unsigned number(const char **text)
{
    unsigned n = 0;
    while (**text >= '0' && **text <= '9' && n < 100000)
        n = 10 * n + (*(*text)++ - '0');
    return n;
}

BOOL parse_size(const char *text, COORD *size)
{
    unsigned width = number(&text);
    if (*text++ != 'x')
        return FALSE;
    unsigned height = number(&text);
    if (*text || !width || !height || width > 32767 || height > 32767)
        return FALSE;
    size->X = width;
    size->Y = height;
    return TRUE;
}

char *put(char *to, const char *text)
{
    while (*text)
        *to++ = *text++;
    return to;
}

char *put_number(char *to, DWORD n)
{
    char digits[10];
    unsigned i = 0;
    do
        digits[i++] = '0' + n % 10;
    while (n /= 10);
    while (i)
        *to++ = digits[--i];
    *to++ = 0;
    return to;
}

const WCHAR *path(const WCHAR *name)
{
    static WCHAR text[128];
    unsigned i = 0;
    for (; i < directory_length; i++)
        text[i] = directory[i];
    for (unsigned j = 0; name[j] && i < 127; j++)
        text[i++] = name[j];
    text[i] = 0;
    return text;
}

void move_file(const WCHAR *from, const WCHAR *to)
{
    WCHAR target[128];
    const WCHAR *name = path(to);
    for (unsigned i = 0; i < 128 && (target[i] = name[i]); i++)
        ;
    MoveFileExW(path(from), target, MOVEFILE_REPLACE_EXISTING);
}

void write_file(const WCHAR *name, const char *data, DWORD size)
{
    DWORD done;
    HANDLE file = CreateFileW(path(L"new"), GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return;
    WriteFile(file, data, size, &done, NULL);
    CloseHandle(file);
    move_file(L"new", name);
}

/* The whole file with two NULs at its end; NULL when it is missing or too long. */
char *read_file(const WCHAR *name, DWORD limit)
{
    HANDLE file = CreateFileW(path(name), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL,
                              OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return NULL;
    DWORD size = GetFileSize(file, NULL), done = 0;
    char *data = NULL;
    if (size <= limit && (data = HeapAlloc(heap, 0, size + 2))) {
        if (!ReadFile(file, data, size, &done, NULL))
            done = 0;
        data[done] = data[done + 1] = 0;
    }
    CloseHandle(file);
    return data;
}

void fail(const char *step, DWORD code)
{
    static char record[2048];
    static WCHAR message[512];
    DWORD n = FormatMessageW(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL, code,
                             0, message, 511, NULL);
    while (n && (message[n - 1] == '\n' || message[n - 1] == '\r'))
        n--;
    char *to = put(put(record, "step="), step);
    *to++ = 0;
    to = put_number(put(to, "code="), code);
    to = put(to, "message=");
    to += WideCharToMultiByte(CP_UTF8, 0, message, n, to, sizeof(record) - 64, NULL, NULL);
    *to++ = 0;
    write_file(L"error", record, to - record);
    ExitProcess(1);
}

BOOL read_start(struct start *start)
{
    char *data = read_file(L"start", START_LIMIT);
    if (!data || !text_is(data, "version=1"))
        return FALSE;
    unsigned block = 0, records = 0;
    for (char *record = data; *record; record++) {
        records++;
        while (*record)
            record++;
        block = record - data;
    }
    WCHAR *environment = start->environment = HeapAlloc(heap, 0, 2 * (block + records + 2));
    if (!environment)
        return FALSE;
    for (const char *record = data, *value; *record; record++) {
        if (key_is(record, "command", &value))
            start->command = wide(value);
        else if (key_is(record, "application", &value))
            start->application = wide(value);
        else if (key_is(record, "directory", &value))
            start->directory = wide(value);
        else if (key_is(record, "user", &value))
            start->restricted = text_is(value, "user");
        else if (key_is(record, "environment", &value))
            environment += MultiByteToWideChar(CP_UTF8, 0, value, -1, environment,
                                               block + records + 2);
        else if (key_is(record, "terminal", &value))
            start->terminal = parse_size(value, &start->size);
        else if (!key_is(record, "version", &value))
            return FALSE;
        while (*record)
            record++;
    }
    *environment++ = 0;
    *environment = 0;
    HeapFree(heap, 0, data);
    return start->command != NULL;
}

static BOOL letter_or_digit(WCHAR c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

BOOL is_first(void)
{
    return directory[directory_length - 2] == '0' && directory[directory_length - 3] == '\\';
}

void open_directory(void)
{
    const WCHAR *last = GetCommandLineW();
    for (const WCHAR *c = last; *c; c++)
        if (*c == ' ' && c[1] > ' ')
            last = c + 1;
    WCHAR *to = directory;
    for (const WCHAR *s = L"\\\\?\\unix\\prefix\\.silo\\"; *s;)
        *to++ = *s++;
    for (unsigned n = 0; n < 64 && letter_or_digit(*last); n++)
        *to++ = *last++;
    *to++ = '\\';
    directory_length = to - directory;
}

