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
 * request and size, written to us (renamed into place) at any time, with a byte for the FIFO
 * wake.fifo after each; we take them away:
 *     event=ctrl-c         or ctrl-break, which is taken as the same: Wine's ends the whole console
 *     event=shutdown       the event that Windows raises when it shuts down
 *     terminal=WxH         the terminal's new size, in `size`
 *
 * services, written to us at most once: services are told to stop, and waited for at the end
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
#include "run.h"
#include "image.h"

enum { SERVICES_WAIT = 5000 };

HANDLE heap, stop, process;
DWORD process_id;
BOOL program_is_cmd;

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

void *base_function(const char *name)
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
static void join_session(void)
{
    HANDLE session, events[2];
    OBJECT_ATTRIBUTES attributes;
    UNICODE_STRING name;
    object(&attributes, &name, L"\\KernelObjects\\__wineboot_event", 0);
    NtOpenEvent(&session, SYNCHRONIZE, &attributes);
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

/* The command's first word, as the file that CreateProcess takes it for. */
static BOOL find_program(const struct start *start, WCHAR *path, unsigned room)
{
    WCHAR word[MAX_PATH];
    const WCHAR *from = start->application ? start->application : start->command;
    WCHAR end = start->application ? 0 : ' ';
    unsigned n = 0;
    if (end && *from == '"')
        end = *from++;
    while (from[n] && from[n] != end && n < MAX_PATH - 1) {
        word[n] = from[n];
        n++;
    }
    word[n] = 0;
    DWORD found = SearchPathW(NULL, word, L".exe", room, path, NULL);
    return found && found < room;
}

/* Why the program was not started. Wine misses a file where it is a 16-bit program. */
static DWORD start_error(const struct start *start)
{
    WCHAR path[MAX_PATH];
    DWORD error = GetLastError();
    BOOL may_be = error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND
        || error == ERROR_BAD_EXE_FORMAT;
    return may_be && find_program(start, path, MAX_PATH) && is_16_bit(path)
        ? ERROR_EXE_MACHINE_TYPE_MISMATCH
        : error;
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
        fail("program", start_error(start));
    join_session();
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
    HANDLE wake = open_wake();
    start_program(&start, &startup);

    HANDLE wait[2 + REGISTRY_EVENTS] = { process };
    DWORD code, requests = 0, watched = 1;
    if (wake) {
        requests = watched;
        wait[watched++] = wake;
    }
    DWORD registry = watched;
    /* Once in a container. */
    if (is_first())
        watched += watch_registry(&wait[registry]);
    serve_requests();
    for (;;) {
        DWORD which =
            WaitForMultipleObjects(watched, wait, FALSE, registry_patience()) - WAIT_OBJECT_0;
        if (which == WAIT_TIMEOUT) {
            write_registry();
        } else if (requests && which == requests) {
            wait_for_wake();
            serve_requests();
        } else if (which >= registry && which < watched) {
            registry_changed(which - registry);
        } else {
            break;
        }
    }
    GetExitCodeProcess(process, &code);
    wait_for_services();
    if (stop)
        SetEvent(stop);
    for (unsigned i = 0; i < 2; i++)
        if (output_pumps[i])
            WaitForSingleObject(output_pumps[i], INFINITE);
    char record[32];
    write_file(L"exit", record, put_number(put(record, "code="), code) - record);
    ExitProcess(0);
}
