/* The program's console: events, its size. */
#include "run.h"

void resize(COORD size)
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

/* Joins the program's console, which without a terminal is not ours. */
static BOOL join_console(void)
{
    if (!stop)
        return TRUE;
    FreeConsole(); /* Wine counts one even when there is none */
    return AttachConsole(process_id);
}

static void leave_console(void)
{
    if (stop)
        FreeConsole();
}

/*
 * Raises an event in one process in the way of Windows: by a thread there that calls kernelbase's
 * CtrlRoutine.
 */
static BOOL raise_in(DWORD id, DWORD event)
{
    LPTHREAD_START_ROUTINE routine = (LPTHREAD_START_ROUTINE)base_function("CtrlRoutine");
    const BYTE *ours = (const BYTE *)routine;
    BYTE theirs[32];
    SIZE_T done = 0;
    HANDLE thread = NULL;
    BOOL narrow = FALSE;
    HANDLE other = OpenProcess(PROCESS_CREATE_THREAD | PROCESS_QUERY_INFORMATION | PROCESS_VM_READ
                                   | PROCESS_VM_WRITE | PROCESS_VM_OPERATION,
                               FALSE, id);
    if (!other)
        return FALSE;
    if (IsWow64Process(other, &narrow) && narrow) {
        routine = (LPTHREAD_START_ROUTINE)narrow_function(other, "CtrlRoutine");
        if (routine)
            thread = CreateRemoteThread(other, NULL, 0, routine, (void *)(ULONG_PTR)event, 0, NULL);
    } else if (routine && ReadProcessMemory(other, ours, theirs, sizeof(theirs), &done)
        && done == sizeof(theirs)) {
        unsigned i = 0;
        while (i < sizeof(theirs) && theirs[i] == ours[i])
            i++;
        if (i == sizeof(theirs))
            thread = CreateRemoteThread(other, NULL, 0, routine, (void *)(ULONG_PTR)event, 0, NULL);
    }
    if (thread)
        CloseHandle(thread);
    CloseHandle(other);
    return thread != NULL;
}

/* Raises an event in all on the console but us and the program; in how many. */
static unsigned raise_in_others(DWORD event)
{
    enum { MOST = 256 };
    DWORD list[MOST], count = join_console() ? GetConsoleProcessList(list, MOST) : 0;
    unsigned raised = 0;
    leave_console();
    for (DWORD i = 0; i < count && count <= MOST; i++)
        if (list[i] != GetCurrentProcessId() && list[i] != process_id)
            raised += raise_in(list[i], event);
    return raised;
}

/*
 * Ctrl-C. As with Linux containers it is for the program alone, which tells its own children:
 * PostgreSQL's take it for something else. But cmd.exe, which runs a script, tells nobody and
 * would end at once, so there it is for those that cmd waits for.
 */
static void interrupt(void)
{
    if (program_is_cmd ? raise_in_others(CTRL_C_EVENT) > 0 : raise_in(process_id, CTRL_C_EVENT))
        return;
    if (join_console())
        GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0);
    leave_console();
}

/* What Windows raises in everybody when it shuts down. Who does not handle it ends. */
static void shut_down(void)
{
    raise_in_others(CTRL_SHUTDOWN_EVENT);
    raise_in(process_id, CTRL_SHUTDOWN_EVENT);
}

static void serve(const char *data)
{
    COORD size;
    for (const char *record = data, *value; *record; record++) {
        if (key_is(record, "terminal", &value) && parse_size(value, &size))
            resize(size);
        else if (key_is(record, "event", &value) && text_is(value, "shutdown"))
            shut_down();
        else if (key_is(record, "event", &value) && *value)
            interrupt();
        while (*record)
            record++;
    }
}

void serve_requests(void)
{
    serve_services();
    static const WCHAR *const names[] = { L"request", L"size" };
    for (unsigned i = 0; i < ARRAYSIZE(names); i++) {
        /* The next one may come at any moment: this one is taken away before it is read. */
        move_file(names[i], L"taken");
        char *data = read_file(L"taken", 4096);
        if (!data)
            continue;
        DeleteFileW(path(L"taken"));
        serve(data);
        HeapFree(heap, 0, data);
    }
}

static HANDLE wake;
static OVERLAPPED wake_read;

void wait_for_wake(void)
{
    static char bytes[64];
    ResetEvent(wake_read.hEvent);
    /* What is there already sets the event at once. */
    ReadFile(wake, bytes, sizeof(bytes), NULL, &wake_read);
}

HANDLE open_wake(void)
{
    /* For writing too: one without a writer is at its end. */
    wake = CreateFileW(path(L"wake.fifo"), GENERIC_READ | GENERIC_WRITE,
                       FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING,
                       FILE_FLAG_OVERLAPPED, NULL);
    if (wake == INVALID_HANDLE_VALUE || !(wake_read.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)))
        return NULL;
    wait_for_wake();
    return wake_read.hEvent;
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
BOOL WINAPI ignore_event(DWORD event)
{
    if (event == CTRL_C_EVENT && !stop && program_is_cmd)
        drop_line();
    return event == CTRL_C_EVENT || event == CTRL_BREAK_EVENT;
}

