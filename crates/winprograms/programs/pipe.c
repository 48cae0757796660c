/*
 * silo-pipe: one instance of a named pipe whose other end is outside of Windows.
 *
 *     wine64 C:\windows\system32\silo-pipe.exe <name> administrators|everyone
 *
 * Process 1 of a container starts one for each client that may come, and connects it with a Unix
 * socket. What it says on its standard output:
 *
 *     r                        \\.\pipe\<name> is there
 *     c                        a client has connected
 *     4 bytes, n bytes ...     what the client writes: its length, low byte first, and the bytes;
 *                              length 0: the client will write no more
 *
 * What it reads from its standard input goes to the client; at its end the client is left. The
 * pipe is of messages and read as bytes, as Docker's own is on Windows: a message of nothing is
 * how a client says that it will write no more.
 */
#include <windows.h>
#include <winternl.h>

enum { BUFFER = 65536, ACL_SIZE = 128 };

NTSTATUS NTAPI RtlCreateSecurityDescriptor(SECURITY_DESCRIPTOR *, ULONG);
NTSTATUS NTAPI RtlCreateAcl(ACL *, ULONG, ULONG);
NTSTATUS NTAPI RtlAddAccessAllowedAce(ACL *, ULONG, ULONG, SID *);
NTSTATUS NTAPI RtlSetDaclSecurityDescriptor(SECURITY_DESCRIPTOR *, BOOLEAN, ACL *, BOOLEAN);

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
    (void)unused;
    while (ReadFile(input, buffer, BUFFER, &size, NULL) && size) {
        for (DWORD at = 0; at < size; at += done) {
            if (!WriteFile(pipe, buffer + at, size - at, NULL, &overlapped)
                && GetLastError() != ERROR_IO_PENDING)
                ExitProcess(0);
            if (!GetOverlappedResult(pipe, &overlapped, &done, TRUE) || !done)
                ExitProcess(0);
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

/* Who may connect: everybody, or those that Windows lets reach Docker's own pipe. */
static SECURITY_DESCRIPTOR *access_for(BOOL everyone)
{
    static SECURITY_DESCRIPTOR descriptor;
    static DWORD space[ACL_SIZE / sizeof(DWORD)];
    static struct {
        SID sid;
        DWORD second;
    } administrators = { { 1, 2, { { 0, 0, 0, 0, 0, 5 } }, { SECURITY_BUILTIN_DOMAIN_RID } },
                         DOMAIN_ALIAS_RID_ADMINS };
    static SID system = { 1, 1, { { 0, 0, 0, 0, 0, 5 } }, { SECURITY_LOCAL_SYSTEM_RID } };
    ACL *list = (ACL *)space;
    if (RtlCreateSecurityDescriptor(&descriptor, SECURITY_DESCRIPTOR_REVISION) < 0
        || RtlCreateAcl(list, ACL_SIZE, ACL_REVISION) < 0
        || RtlAddAccessAllowedAce(list, ACL_REVISION, GENERIC_ALL, &administrators.sid) < 0
        || RtlAddAccessAllowedAce(list, ACL_REVISION, GENERIC_ALL, &system) < 0
        || RtlSetDaclSecurityDescriptor(&descriptor, TRUE, everyone ? NULL : list, FALSE) < 0)
        ExitProcess(1);
    return &descriptor;
}

void start(void)
{
    static WCHAR path[300];
    const WCHAR *words[2] = { L"", L"" };
    unsigned length = 0;
    /* Neither the program's path nor the names have blanks or quotes in them. */
    const WCHAR *c = GetCommandLineW();
    for (unsigned i = 0; i < 2; i++) {
        while (*c && *c != ' ')
            c++;
        while (*c == ' ')
            c++;
        words[i] = c;
    }
    for (const WCHAR *from = L"\\\\.\\pipe\\"; *from;)
        path[length++] = *from++;
    for (const WCHAR *from = words[0]; *from && *from != ' ' && length < 299;)
        path[length++] = *from++;
    input = GetStdHandle(STD_INPUT_HANDLE);
    output = GetStdHandle(STD_OUTPUT_HANDLE);
    SECURITY_ATTRIBUTES attributes = { sizeof(attributes), access_for(*words[1] == 'e'), FALSE };
    pipe = CreateNamedPipeW(path, PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED,
                            PIPE_TYPE_MESSAGE | PIPE_READMODE_BYTE | PIPE_REJECT_REMOTE_CLIENTS,
                            PIPE_UNLIMITED_INSTANCES, BUFFER, BUFFER, 0, &attributes);
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
    if (!CreateThread(NULL, 0, to_client, NULL, 0, NULL))
        ExitProcess(1);
    from_client();
    ExitProcess(0);
}
