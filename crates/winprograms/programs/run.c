/*
 * silo-run: starts a container's program, or one executed in it, and stays until it ends.
 *
 *     wine64 C:\windows\system32\silo-run.exe <name>
 *
 * Everything else goes through files in the directory /prefix/.silo/<name>, which is reached through
 * Wine's \\?\unix. Records are `key=value` and a NUL, in UTF-8; a key may be repeated where that is
 * said. A file that somebody waits for is written under another name and renamed.
 *
 * start, written before we are started:
 *     version=1            first
 *     command=...          the whole command line, as CreateProcess takes it
 *     application=...      optional: the program, when it is not the first word of the command
 *     directory=...        optional: the working directory, which has to exist
 *     user=administrator   or user=user: without Administrators and without privileges
 *     environment=N=V      repeated: the whole environment
 *     terminal=WxH         optional: the program gets the console on our terminal
 *     services=skip        optional: do not wait until Wine's drivers run (new sessions only)
 *
 * started, written by us when the program runs:
 *     process=<id>         Windows' process id
 *
 * exit, written by us when it has ended and all its output was passed on:
 *     code=<n>             decimal, 32 bits without sign
 *
 * error, written by us when the program could not be started:
 *     step=...             control, directory, token, pipe, program
 *     code=<n>             Windows' error code
 *     message=...          Windows' words for it
 *
 * request, written to us (renamed into place) at any time; we delete it when it is done:
 *     event=ctrl-c         or ctrl-break, which is taken as the same: Wine's ends the whole console
 *     terminal=WxH         the terminal's new size
 *
 * Our own exit code is 0 when `exit` was written, and 1 otherwise.
 *
 * Without a terminal, standard streams that are pipes outside become Windows pipes, because
 * programs ask them what only those can answer (node.js ends when it gets a Unix pipe). Others
 * (files, /dev/null) are passed on. The program also gets a console that nobody sees, as on
 * Windows: what it starts shares it, and console events reach all of them. (AllocConsole would
 * give one with a window, which does not work without a screen.)
 *
 * Input is handed over line by line, each when the one before was taken: Wine's cmd.exe takes all
 * that there is and throws away what follows the first line. For other programs that stops after
 * the first LINES_LIMIT bytes, because it is slow.
 */
#include <windows.h>
#include <winternl.h>

#include "native.h"

enum { BUFFER = 65536, LINES_LIMIT = 65536, START_LIMIT = 8 << 20, SERVICES_WAIT = 5000 };

struct start {
    WCHAR *command, *application, *directory;
    WCHAR *environment; /* a block as for CreateProcess */
    BOOL restricted, terminal, skip_services;
    COORD size;
};

static WCHAR directory[96]; /* \\?\unix\prefix\.silo\<name>\ */
static unsigned directory_length;
static HANDLE heap, stop, process;
static DWORD process_id;
static HANDLE output_pumps[2];
static BOOL program_is_cmd;

/* ---- text ---- */

static unsigned length(const WCHAR *text)
{
    unsigned n = 0;
    while (text[n])
        n++;
    return n;
}

static BOOL key_is(const char *record, const char *key, const char **value)
{
    while (*key && *record == *key)
        record++, key++;
    if (*key || *record != '=')
        return FALSE;
    *value = record + 1;
    return TRUE;
}

static BOOL text_is(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static BOOL ends_with(const WCHAR *text, unsigned n, const WCHAR *end)
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

static BOOL parse_size(const char *text, COORD *size)
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

static char *put(char *to, const char *text)
{
    while (*text)
        *to++ = *text++;
    return to;
}

static char *put_number(char *to, DWORD n)
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

/* ---- files of the control directory ---- */

static const WCHAR *path(const WCHAR *name)
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

static void write_file(const WCHAR *name, const char *data, DWORD size)
{
    DWORD done;
    WCHAR target[128];
    HANDLE file = CreateFileW(path(L"new"), GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return;
    WriteFile(file, data, size, &done, NULL);
    CloseHandle(file);
    const WCHAR *to = path(name);
    for (unsigned i = 0; i < 128 && (target[i] = to[i]); i++)
        ;
    MoveFileExW(path(L"new"), target, MOVEFILE_REPLACE_EXISTING);
}

/* The whole file with two NULs at its end; NULL when it is missing or too long. */
static char *read_file(const WCHAR *name, DWORD limit)
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

static void __attribute__((noreturn)) fail(const char *step, DWORD code)
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

static BOOL read_start(struct start *start)
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
        else if (key_is(record, "services", &value))
            start->skip_services = text_is(value, "skip");
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

/* ---- streams ---- */

struct pump {
    HANDLE from, to;
};

static BOOL write_all(HANDLE to, const char *data, DWORD size)
{
    DWORD done;
    while (size) {
        if (!WriteFile(to, data, size, &done, NULL))
            return FALSE;
        data += done;
        size -= done;
    }
    return TRUE;
}

static DWORD WINAPI pump_input(void *argument)
{
    struct pump *pump = argument;
    char *buffer = HeapAlloc(heap, 0, BUFFER);
    DWORD size;
    ULONG64 passed = 0;
    while (buffer && ReadFile(pump->from, buffer, BUFFER, &size, NULL) && size) {
        for (DWORD at = 0; at < size;) {
            DWORD part = size - at;
            BOOL lines = program_is_cmd || passed < LINES_LIMIT;
            if (lines) {
                for (part = 0; at + part < size && buffer[at + part] != '\n'; part++)
                    ;
                part += at + part < size;
            }
            if (!write_all(pump->to, buffer + at, part))
                return 0; /* nobody reads any more */
            if (lines)
                FlushFileBuffers(pump->to);
            at += part;
            passed += part;
        }
    }
    FlushFileBuffers(pump->to);
    CloseHandle(pump->to);
    return 0;
}

static DWORD WINAPI pump_output(void *argument)
{
    struct pump *pump = argument;
    char *buffer = HeapAlloc(heap, 0, BUFFER);
    OVERLAPPED overlapped = { .hEvent = CreateEventW(NULL, TRUE, FALSE, NULL) };
    HANDLE wait[2] = { overlapped.hEvent, stop };
    DWORD size;
    while (buffer) {
        if (!ReadFile(pump->from, buffer, BUFFER, NULL, &overlapped)
            && GetLastError() != ERROR_IO_PENDING)
            break;
        /* What was written before the stop has completed the read, and that is looked at first. */
        if (WaitForMultipleObjects(2, wait, FALSE, INFINITE) != WAIT_OBJECT_0)
            CancelIo(pump->from);
        if (!GetOverlappedResult(pump->from, &overlapped, &size, TRUE))
            break;
        if (!write_all(pump->to, buffer, size))
            break;
    }
    CloseHandle(pump->from);
    return 0;
}

/*
 * A Windows pipe of which we hold one end and the program the other. Returns the program's end.
 */
static HANDLE make_pipe(unsigned stream, HANDLE outside, HANDLE *thread)
{
    static struct pump pumps[3];
    SECURITY_ATTRIBUTES inherited = { sizeof(inherited), NULL, TRUE };
    WCHAR name[64], *to = name;
    for (const WCHAR *s = L"\\\\.\\pipe\\silo-run-"; *s;)
        *to++ = *s++;
    for (DWORD n = GetCurrentProcessId(); n; n /= 10)
        *to++ = '0' + n % 10;
    *to++ = '-';
    *to++ = '0' + stream;
    *to = 0;
    BOOL input = stream == 0;
    HANDLE ours = CreateNamedPipeW(
        name,
        (input ? PIPE_ACCESS_OUTBOUND : PIPE_ACCESS_INBOUND | FILE_FLAG_OVERLAPPED)
            | FILE_FLAG_FIRST_PIPE_INSTANCE,
        PIPE_TYPE_BYTE | PIPE_WAIT | PIPE_REJECT_REMOTE_CLIENTS, 1, BUFFER, BUFFER, 0, NULL);
    if (ours == INVALID_HANDLE_VALUE)
        fail("pipe", GetLastError());
    HANDLE theirs = CreateFileW(name,
                                input ? GENERIC_READ | FILE_WRITE_ATTRIBUTES
                                      : GENERIC_WRITE | FILE_READ_ATTRIBUTES,
                                0, &inherited, OPEN_EXISTING, 0, NULL);
    if (theirs == INVALID_HANDLE_VALUE)
        fail("pipe", GetLastError());
    struct pump *pump = &pumps[stream];
    pump->from = input ? outside : ours;
    pump->to = input ? ours : outside;
    *thread = CreateThread(NULL, 0, input ? pump_input : pump_output, pump, 0, NULL);
    if (!*thread)
        fail("pipe", GetLastError());
    return theirs;
}

static void connect_streams(STARTUPINFOW *startup)
{
    static const DWORD streams[3] = { STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE };
    HANDLE *theirs[3] = { &startup->hStdInput, &startup->hStdOutput, &startup->hStdError };
    startup->dwFlags |= STARTF_USESTDHANDLES;
    for (unsigned i = 0; i < 3; i++) {
        HANDLE outside = GetStdHandle(streams[i]), thread;
        if (!outside || outside == INVALID_HANDLE_VALUE)
            continue;
        if (GetFileType(outside) != FILE_TYPE_PIPE) {
            SetHandleInformation(outside, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
            *theirs[i] = outside;
            continue;
        }
        SetHandleInformation(outside, HANDLE_FLAG_INHERIT, 0);
        *theirs[i] = make_pipe(i, outside, &thread);
        if (i)
            output_pumps[i - 1] = thread;
    }
}

/* ---- the program ---- */

/* Whether the command's first word is cmd.exe or a script for it. */
static BOOL is_cmd(const struct start *start)
{
    const WCHAR *word = start->application ? start->application : start->command;
    WCHAR end = 0;
    if (!start->application && *word == '"')
        end = *word++;
    unsigned n = 0;
    while (word[n] && (start->application || word[n] != (end ? end : ' ')))
        n++;
    if (ends_with(word, n, L".bat") || ends_with(word, n, L".cmd"))
        return TRUE;
    unsigned m = ends_with(word, n, L"cmd.exe") ? 7 : ends_with(word, n, L"cmd") ? 3 : 0;
    return m && (n == m || word[n - m - 1] == '\\' || word[n - m - 1] == '/');
}

/* The program is looked up by its own PATH, not by ours. */
static void take_path(const WCHAR *environment)
{
    for (; *environment; environment += length(environment) + 1) {
        const WCHAR *e = environment;
        if ((e[0] | 32) == 'p' && (e[1] | 32) == 'a' && (e[2] | 32) == 't' && (e[3] | 32) == 'h'
            && e[4] == '=')
            SetEnvironmentVariableW(L"PATH", e + 5);
    }
}

typedef BOOL(WINAPI *open_token_function)(HANDLE, DWORD, HANDLE *);
typedef BOOL(WINAPI *restrict_function)(HANDLE, DWORD, DWORD, SID_AND_ATTRIBUTES *, DWORD,
                                        LUID_AND_ATTRIBUTES *, DWORD, SID_AND_ATTRIBUTES *,
                                        HANDLE *);
typedef BOOL(WINAPI *as_user_function)(HANDLE, const WCHAR *, WCHAR *, SECURITY_ATTRIBUTES *,
                                       SECURITY_ATTRIBUTES *, BOOL, DWORD, void *, const WCHAR *,
                                       STARTUPINFOW *, PROCESS_INFORMATION *);

static void *base_function(const char *name)
{
    return (void *)GetProcAddress(GetModuleHandleW(L"kernelbase.dll"), name);
}

static HANDLE restricted_token(void)
{
    struct {
        SID sid;
        DWORD second;
    } administrators = { { 1, 2, { { 0, 0, 0, 0, 0, 5 } }, { SECURITY_BUILTIN_DOMAIN_RID } },
                         DOMAIN_ALIAS_RID_ADMINS };
    SID_AND_ATTRIBUTES deny = { &administrators.sid, 0 };
    open_token_function open_token = (open_token_function)base_function("OpenProcessToken");
    restrict_function restrict_token = (restrict_function)base_function("CreateRestrictedToken");
    HANDLE own, token;
    if (!open_token || !restrict_token || !open_token(GetCurrentProcess(), MAXIMUM_ALLOWED, &own)
        || !restrict_token(own, DISABLE_MAX_PRIVILEGE, 1, &deny, 0, NULL, 0, NULL, &token))
        fail("token", GetLastError());
    CloseHandle(own);
    return token;
}

/*
 * Holds the session, and waits until its drivers run, through which volumes and networks are asked,
 * and the services can be spoken to.
 */
static void join_session(const struct start *start)
{
    HANDLE session, events[2];
    OBJECT_ATTRIBUTES attributes;
    UNICODE_STRING name;
    object(&attributes, &name, L"\\KernelObjects\\__wineboot_event", 0);
    NtOpenEvent(&session, SYNCHRONIZE, &attributes);
    if (start->skip_services)
        return;
    /* Whoever comes first makes them. */
    object(&attributes, &name, DRIVERS_EVENT, OBJ_OPENIF);
    if (NtCreateEvent(&events[0], EVENT_ALL_ACCESS, &attributes, NotificationEvent, FALSE) < 0)
        return;
    events[1] = CreateEventW(NULL, TRUE, FALSE, L"__wine_SvcctlStarted");
    WaitForMultipleObjects(events[1] ? 2 : 1, events, TRUE, SERVICES_WAIT);
    for (unsigned i = 0; i < 2; i++)
        if (events[i])
            CloseHandle(events[i]);
}

static void start_program(const struct start *start, STARTUPINFOW *startup)
{
    PROCESS_INFORMATION info;
    /* The drivers are waited for while Linux loads the program. */
    DWORD flags = CREATE_SUSPENDED | CREATE_UNICODE_ENVIRONMENT | (start->terminal ? 0 : CREATE_NO_WINDOW);
    BOOL done;
    if (start->directory && !SetCurrentDirectoryW(start->directory))
        fail("directory", GetLastError());
    take_path(start->environment);
    if (start->restricted) {
        HANDLE token = restricted_token();
        as_user_function as_user = (as_user_function)base_function("CreateProcessAsUserW");
        done = as_user
            && as_user(token, start->application, start->command, NULL, NULL, TRUE, flags,
                       start->environment, NULL, startup, &info);
    } else {
        done = CreateProcessW(start->application, start->command, NULL, NULL, TRUE, flags,
                              start->environment, NULL, startup, &info);
    }
    if (!done)
        fail("program", GetLastError());
    join_session(start);
    ResumeThread(info.hThread);
    CloseHandle(info.hThread);
    process = info.hProcess;
    process_id = info.dwProcessId;
    char record[32];
    write_file(L"started", record, put_number(put(record, "process="), info.dwProcessId) - record);
    if (startup->dwFlags & STARTF_USESTDHANDLES) {
        CloseHandle(startup->hStdInput);
        CloseHandle(startup->hStdOutput);
        CloseHandle(startup->hStdError);
    }
}

/* ---- requests ---- */

static void resize(COORD size)
{
    HANDLE console = CreateFileW(L"CONOUT$", GENERIC_READ | GENERIC_WRITE,
                                 FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
    if (console == INVALID_HANDLE_VALUE)
        return;
    CONSOLE_SCREEN_BUFFER_INFO info;
    if (GetConsoleScreenBufferInfo(console, &info)) {
        /* The window must fit the buffer before and after. */
        SMALL_RECT smaller = { 0, 0, min(size.X, info.dwSize.X) - 1, min(size.Y, info.dwSize.Y) - 1 };
        SMALL_RECT window = { 0, 0, size.X - 1, size.Y - 1 };
        SetConsoleWindowInfo(console, TRUE, &smaller);
        SetConsoleScreenBufferSize(console, size);
        SetConsoleWindowInfo(console, TRUE, &window);
    }
    CloseHandle(console);
}

/* Ctrl-C for everybody on the program's console; without a terminal that is not ours. */
static void interrupt(void)
{
    BOOL other = stop != NULL;
    if (other) {
        FreeConsole(); /* Wine counts one even when there is none */
        if (!AttachConsole(process_id))
            return;
    }
    GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0);
    if (other)
        FreeConsole();
}

static void serve_request(void)
{
    char *data = read_file(L"request", 4096);
    if (!data)
        return;
    COORD size;
    for (const char *record = data, *value; *record; record++) {
        if (key_is(record, "terminal", &value) && parse_size(value, &size))
            resize(size);
        else if (key_is(record, "event", &value) && *value)
            interrupt();
        while (*record)
            record++;
    }
    HeapFree(heap, 0, data);
    DeleteFileW(path(L"request"));
}

static INPUT_RECORD key(WORD code, WCHAR letter, DWORD state)
{
    INPUT_RECORD record = { .EventType = KEY_EVENT };
    record.Event.KeyEvent.bKeyDown = TRUE;
    record.Event.KeyEvent.wRepeatCount = 1;
    record.Event.KeyEvent.wVirtualKeyCode = code;
    record.Event.KeyEvent.uChar.UnicodeChar = letter;
    record.Event.KeyEvent.dwControlKeyState = state;
    return record;
}

/* Wine keeps the line that is being typed when Ctrl-C is pressed; Windows drops it. */
static void drop_line(void)
{
    DWORD attached[3], done;
    /* With only us and cmd.exe on the console, nobody but its prompt can be waiting. */
    if (GetConsoleProcessList(attached, 3) != 2)
        return;
    HANDLE console = CreateFileW(L"CONIN$", GENERIC_READ | GENERIC_WRITE,
                                 FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
    if (console == INVALID_HANDLE_VALUE)
        return;
    INPUT_RECORD keys[3] = { key(VK_HOME, 0, 0), key(VK_END, 0, LEFT_CTRL_PRESSED),
                             key(VK_RETURN, '\r', 0) };
    WriteConsoleInputW(console, keys, 3, &done);
    CloseHandle(console);
}

/* Console events are for the program; we end when it does. */
static BOOL WINAPI ignore_event(DWORD event)
{
    if (event == CTRL_C_EVENT && !stop && program_is_cmd)
        drop_line();
    return event == CTRL_C_EVENT || event == CTRL_BREAK_EVENT;
}

static BOOL letter_or_digit(WCHAR c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

static void open_directory(void)
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

void start(void)
{
    struct start start = { 0 };
    STARTUPINFOW startup = { .cb = sizeof(startup) };
    heap = GetProcessHeap();
    open_directory();
    if (!read_start(&start))
        fail("control", ERROR_INVALID_DATA);
    program_is_cmd = is_cmd(&start);
    if (start.terminal) {
        resize(start.size);
    } else {
        stop = CreateEventW(NULL, TRUE, FALSE, NULL);
        connect_streams(&startup);
    }
    SetConsoleCtrlHandler(ignore_event, TRUE);
    HANDLE changes = FindFirstChangeNotificationW(path(L""), FALSE, FILE_NOTIFY_CHANGE_FILE_NAME);
    start_program(&start, &startup);

    HANDLE wait[2] = { process, changes };
    DWORD watched = changes == INVALID_HANDLE_VALUE ? 1 : 2, code;
    serve_request();
    while (WaitForMultipleObjects(watched, wait, FALSE, INFINITE) == WAIT_OBJECT_0 + 1) {
        FindNextChangeNotification(changes);
        serve_request();
    }
    GetExitCodeProcess(process, &code);
    if (stop)
        SetEvent(stop);
    for (unsigned i = 0; i < 2; i++)
        if (output_pumps[i])
            WaitForSingleObject(output_pumps[i], INFINITE);
    char record[32];
    write_file(L"exit", record, put_number(put(record, "code="), code) - record);
    ExitProcess(0);
}
