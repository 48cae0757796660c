/* Notes what its console tells it in C:\work\log: events, and sizes when it has a terminal. With
 * an argument it ends at the event of the shutdown. */
#include <stdio.h>
#include <windows.h>

static HANDLE log_file, ended;
static BOOL ends;

static void note(const char *what, int a, int b)
{
    char line[64];
    DWORD done;
    WriteFile(log_file, line, sprintf(line, "%s %d %d\n", what, a, b), &done, NULL);
}

static BOOL WINAPI event(DWORD number)
{
    note("event", (int)number, 0);
    if (number == CTRL_SHUTDOWN_EVENT && ends)
        SetEvent(ended);
    return TRUE;
}

static DWORD WINAPI read_console(void *input)
{
    INPUT_RECORD record;
    DWORD count;
    while (ReadConsoleInputW(input, &record, 1, &count))
        if (record.EventType == WINDOW_BUFFER_SIZE_EVENT)
            note("size", record.Event.WindowBufferSizeEvent.dwSize.X,
                 record.Event.WindowBufferSizeEvent.dwSize.Y);
    return 0;
}

int main(int count, char **arguments)
{
    DWORD mode;
    HANDLE input = GetStdHandle(STD_INPUT_HANDLE);
    ends = count > 1 && arguments[1][0];
    ended = CreateEventW(NULL, TRUE, FALSE, NULL);
    log_file = CreateFileW(L"C:\\work\\log", FILE_APPEND_DATA, FILE_SHARE_READ, NULL,
                           CREATE_ALWAYS, 0, NULL);
    SetConsoleCtrlHandler(event, TRUE);
    if (GetConsoleMode(input, &mode)) {
        SetConsoleMode(input, ENABLE_WINDOW_INPUT);
        CreateThread(NULL, 0, read_console, input, 0, NULL);
    }
    note("ready", 0, 0);
    WaitForSingleObject(ended, INFINITE);
    return 42;
}
