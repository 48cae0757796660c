/*
 * The services of a container that is stopped: they are told that Windows shuts down, and waited
 * for, as Windows does. Wine's own are left alone.
 */
#include "run.h"

enum { MOST = MAXIMUM_WAIT_OBJECTS, LIST = 65536, CONFIG = 8192, PATIENCE = 20000 /* ms */ };

typedef SC_HANDLE(WINAPI *manager_function)(const WCHAR *, const WCHAR *, DWORD);
typedef SC_HANDLE(WINAPI *open_function)(SC_HANDLE, const WCHAR *, DWORD);
typedef BOOL(WINAPI *enumerate_function)(SC_HANDLE, SC_ENUM_TYPE, DWORD, DWORD, BYTE *, DWORD,
                                         DWORD *, DWORD *, DWORD *, const WCHAR *);
typedef BOOL(WINAPI *config_function)(SC_HANDLE, QUERY_SERVICE_CONFIGW *, DWORD, DWORD *);
typedef BOOL(WINAPI *control_function)(SC_HANDLE, DWORD, SERVICE_STATUS *);

static open_function open_service;
static enumerate_function enumerate;
static config_function get_config;
static control_function control;
static HANDLE worker;

/* Whether a service's program is one of Windows'. */
static BOOL is_system(SC_HANDLE service)
{
    static const WCHAR system[] = L"c:\\windows\\system32\\";
    DWORD size;
    QUERY_SERVICE_CONFIGW *config = HeapAlloc(heap, 0, CONFIG);
    BOOL is = TRUE;
    if (config && get_config(service, config, CONFIG, &size)) {
        const WCHAR *path = config->lpBinaryPathName;
        path += *path == '"';
        unsigned n = 0;
        while (system[n] && (path[n] >= 'A' && path[n] <= 'Z' ? path[n] + 32 : path[n]) == system[n])
            n++;
        is = !system[n];
    }
    if (config)
        HeapFree(heap, 0, config);
    return is;
}

/* Tells a service; its process, where there is one to wait for. */
static HANDLE tell(SC_HANDLE manager, const ENUM_SERVICE_STATUS_PROCESSW *entry)
{
    const SERVICE_STATUS_PROCESS *status = &entry->ServiceStatusProcess;
    SERVICE_STATUS now;
    HANDLE ending = NULL;
    if (!status->dwProcessId
        || !(status->dwControlsAccepted & (SERVICE_ACCEPT_SHUTDOWN | SERVICE_ACCEPT_STOP)))
        return NULL;
    SC_HANDLE service = open_service(manager, entry->lpServiceName, SERVICE_ALL_ACCESS);
    if (!service || is_system(service))
        return NULL;
    ending = OpenProcess(SYNCHRONIZE, FALSE, status->dwProcessId);
    /* Where Wine does not pass on the first, as Windows does not for programs. */
    if (!(status->dwControlsAccepted & SERVICE_ACCEPT_SHUTDOWN)
        || !control(service, SERVICE_CONTROL_SHUTDOWN, &now))
        control(service, SERVICE_CONTROL_STOP, &now);
    return ending;
}

static DWORD WINAPI stop_all(void *unused)
{
    (void)unused;
    HMODULE library = LoadLibraryW(L"advapi32.dll");
    manager_function open_manager = (manager_function)(void *)GetProcAddress(library, "OpenSCManagerW");
    open_service = (open_function)(void *)GetProcAddress(library, "OpenServiceW");
    enumerate = (enumerate_function)(void *)GetProcAddress(library, "EnumServicesStatusExW");
    get_config = (config_function)(void *)GetProcAddress(library, "QueryServiceConfigW");
    control = (control_function)(void *)GetProcAddress(library, "ControlService");
    if (!open_manager || !open_service || !enumerate || !get_config || !control)
        return 1;
    SC_HANDLE manager = open_manager(NULL, NULL, SC_MANAGER_CONNECT | SC_MANAGER_ENUMERATE_SERVICE);
    BYTE *list = HeapAlloc(heap, 0, LIST);
    HANDLE ending[MOST];
    DWORD size, count = 0, resume = 0, waited = 0;
    if (!manager || !list)
        return 1;
    /* It fails when there are more; the others end with the container. */
    enumerate(manager, SC_ENUM_PROCESS_INFO, SERVICE_WIN32, SERVICE_ACTIVE, list, LIST, &size,
              &count, &resume, NULL);
    for (DWORD i = 0; i < count && waited < MOST; i++) {
        HANDLE process = tell(manager, (const ENUM_SERVICE_STATUS_PROCESSW *)list + i);
        if (process)
            ending[waited++] = process;
    }
    if (waited)
        WaitForMultipleObjects(waited, ending, TRUE, PATIENCE);
    return 0;
}

void serve_services(void)
{
    if (!worker && is_first() && DeleteFileW(path(L"services")))
        worker = CreateThread(NULL, 0, stop_all, NULL, 0, NULL);
}

void wait_for_services(void)
{
    /* It may have come just before the program ended. */
    serve_services();
    if (worker)
        WaitForSingleObject(worker, INFINITE);
}
