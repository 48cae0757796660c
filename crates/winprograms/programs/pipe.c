/*
 * silo-pipe: one instance of a named pipe whose other end is outside of Windows.
 *
 *     wine64 C:\windows\system32\silo-pipe.exe <name>
 *
 * Process 1 of a container starts one for each client that may come, and connects it with a Unix
 * socket. What it says on its standard output:
 *
 *     r                        \\.\pipe\<name> is there
 *     c                        a client has connected
 *     4 bytes, n bytes ...     what the client writes: its length, low byte first, and the bytes;
 *                              length 0: the client will write no more; all ones: it is gone
 *
 * What it reads from its standard input goes to the client; at its end the client is left, and
 * the program ends. It stays until then, since a pipe without any instance is not there, and
 * clients that wait for one would be turned away. The pipe is of messages and read as bytes, as Docker's own is on Windows: a message of nothing is
 * how a client says that it will write no more.
 */
#include <windows.h>

enum { BUFFER = 65536 };

static HANDLE input, output, pipe;

static void say(const void *data, DWORD size)
{
    const char *from = data;
    DWORD done;
    while (size) {
        if (!WriteFile(output, from, size, &done, NULL))
            ExitProcess(0);
        from += done;
        size -= done;
    }
}

static DWORD WINAPI to_client(void *unused)
{
    static char buffer[BUFFER];
    OVERLAPPED overlapped = { .hEvent = CreateEventW(NULL, TRUE, FALSE, NULL) };
    DWORD size, done;
    BOOL gone = FALSE;
    (void)unused;
    while (ReadFile(input, buffer, BUFFER, &size, NULL) && size) {
        for (DWORD at = 0; at < size && !gone; at += done) {
            gone = !WriteFile(pipe, buffer + at, size - at, NULL, &overlapped)
                && GetLastError() != ERROR_IO_PENDING;
            gone = gone || !GetOverlappedResult(pipe, &overlapped, &done, TRUE) || !done;
        }
    }
    /* Until the client has read it all. Then it finds the end: a pipe that is closed, but not one
       that is disconnected, is that to clients. */
    FlushFileBuffers(pipe);
    ExitProcess(0);
}

static void from_client(void)
{
    static struct {
        DWORD size;
        char data[BUFFER];
    } frame;
    OVERLAPPED overlapped = { .hEvent = CreateEventW(NULL, TRUE, FALSE, NULL) };
    BOOL ended = FALSE;
    for (;;) {
        if (!ReadFile(pipe, frame.data, BUFFER, NULL, &overlapped)
            && GetLastError() != ERROR_IO_PENDING)
            return;
        if (!GetOverlappedResult(pipe, &overlapped, &frame.size, TRUE))
            return;
        if (!ended)
            say(&frame, sizeof(frame.size) + frame.size);
        ended = ended || !frame.size;
    }
}

void start(void)
{
    static WCHAR path[300];
    unsigned length = 0;
    /* Neither the program's path nor the name has blanks or quotes in it. */
    const WCHAR *name = GetCommandLineW();
    while (*name && *name != ' ')
        name++;
    while (*name == ' ')
        name++;
    for (const WCHAR *from = L"\\\\.\\pipe\\"; *from;)
        path[length++] = *from++;
    while (*name && *name != ' ' && length < 299)
        path[length++] = *name++;
    input = GetStdHandle(STD_INPUT_HANDLE);
    output = GetStdHandle(STD_OUTPUT_HANDLE);
    pipe = CreateNamedPipeW(path, PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED,
                            PIPE_TYPE_MESSAGE | PIPE_READMODE_BYTE | PIPE_REJECT_REMOTE_CLIENTS,
                            PIPE_UNLIMITED_INSTANCES, BUFFER, BUFFER, 0, NULL);
    if (pipe == INVALID_HANDLE_VALUE)
        ExitProcess(1);
    say("r", 1);
    OVERLAPPED overlapped = { .hEvent = CreateEventW(NULL, TRUE, FALSE, NULL) };
    DWORD done;
    if (!ConnectNamedPipe(pipe, &overlapped)) {
        if (GetLastError() == ERROR_IO_PENDING) {
            if (!GetOverlappedResult(pipe, &overlapped, &done, TRUE))
                ExitProcess(1);
        } else if (GetLastError() != ERROR_PIPE_CONNECTED) {
            ExitProcess(1);
        }
    }
    say("c", 1);
    HANDLE thread = CreateThread(NULL, 0, to_client, NULL, 0, NULL);
    if (!thread)
        ExitProcess(1);
    from_client();
    DisconnectNamedPipe(pipe);
    done = ~0u;
    say(&done, sizeof(done));
    WaitForSingleObject(thread, INFINITE);
    ExitProcess(0);
}
