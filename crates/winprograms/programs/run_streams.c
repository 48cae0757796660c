/* Standard streams that are pipes outside: Windows pipes for the program, and threads that pump. */
#include "run.h"

enum { BUFFER = 65536, LINES_LIMIT = 65536 };

HANDLE output_pumps[2];

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

void connect_streams(STARTUPINFOW *startup)
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

