/*
 * silo-list: tells the processes of a container as Windows sees them.
 *
 *     \\?\unix\prefix\.silo\<name>\silo-list.exe <name>
 *
 * The engine puts it into a directory of its own, where it writes the file `processes`, and runs
 * it for `docker top`. For each process but itself and what runs for it there is a record, ended
 * by a NUL, in UTF-8:
 *
 *     <process id> <processor time in 100 ns> <private bytes in memory> <image name>
 *
 * The exit code is 0 when the file is whole, else the status of what failed.
 */
#include <windows.h>
#include <winternl.h>

NTSTATUS NTAPI RtlUnicodeToUTF8N(char *, ULONG, ULONG *, const WCHAR *, ULONG);

enum { RECORD_LIMIT = 512, FIRST_SIZE = 1 << 16 };

/* SYSTEM_PROCESS_INFORMATION as far as Wine fills it. */
struct process {
    ULONG next, threads;
    LARGE_INTEGER working_set_private;
    ULONG faults, most_threads;
    ULONGLONG cycles;
    LARGE_INTEGER created, user, kernel;
    UNICODE_STRING name;
    LONG priority;
    ULONG_PTR id, parent;
    ULONG handles, session;
    ULONG_PTR key;
    SIZE_T peak_virtual, virtual;
    ULONG page_faults;
    SIZE_T peak_working_set, working_set, peak_paged, paged, peak_nonpaged, nonpaged;
    SIZE_T pagefile; /* Wine: anonymous memory that is resident, so what nobody shares */
};

static char *put_number(char *to, ULONGLONG n)
{
    char digits[20];
    unsigned i = 0;
    do
        digits[i++] = '0' + n % 10;
    while (n /= 10);
    while (i)
        *to++ = digits[--i];
    *to++ = ' ';
    return to;
}

static HANDLE create_file(void)
{
    static WCHAR path[192];
    unsigned length = 0;
    const WCHAR *name = GetCommandLineW();
    for (const WCHAR *c = name; *c; c++)
        if (*c == ' ' && c[1] > ' ')
            name = c + 1;
    for (const WCHAR *c = L"\\\\?\\unix\\prefix\\.silo\\"; *c;)
        path[length++] = *c++;
    while (*name > ' ' && *name != '"' && *name != '\\' && length < 128)
        path[length++] = *name++;
    for (const WCHAR *c = L"\\processes"; *c;)
        path[length++] = *c++;
    return CreateFileW(path, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
}

void start(void)
{
    static char record[RECORD_LIMIT];
    ULONG size = FIRST_SIZE, used;
    char *list;
    NTSTATUS status;
    /* Processes that start meanwhile make the list longer. */
    for (;; size *= 2) {
        list = HeapAlloc(GetProcessHeap(), 0, size);
        if (!list)
            ExitProcess(0xc0000017);
        status = NtQuerySystemInformation(SystemProcessInformation, list, size, &used);
        if (status != (NTSTATUS)0xc0000004)
            break;
        HeapFree(GetProcessHeap(), 0, list);
    }
    if (status < 0)
        ExitProcess((UINT)status);
    HANDLE file = create_file();
    if (file == INVALID_HANDLE_VALUE)
        ExitProcess(0xc0000022);
    ULONG_PTR own = GetCurrentProcessId(), starter = 0;
    for (const struct process *p = (void *)list;; p = (void *)((char *)p + p->next)) {
        if (p->id == own)
            starter = p->parent;
        if (!p->next)
            break;
    }
    for (const struct process *p = (void *)list;; p = (void *)((char *)p + p->next)) {
        if (p->id != own && p->id != starter && p->parent != own) {
            DWORD done;
            ULONG length = 0;
            char *to = put_number(record, p->id);
            to = put_number(to, p->user.QuadPart + p->kernel.QuadPart);
            to = put_number(to, p->pagefile);
            RtlUnicodeToUTF8N(to, RECORD_LIMIT - 80, &length, p->name.Buffer, p->name.Length);
            to += length;
            *to++ = 0;
            if (!WriteFile(file, record, to - record, &done, NULL))
                ExitProcess(0xc000007f);
        }
        if (!p->next)
            break;
    }
    CloseHandle(file);
    ExitProcess(0);
}
