/* sc: looks at services, makes, changes, starts and stops them. */
#include "rt.h"

static SC_HANDLE manager;

static void usage(void)
{
    print_text(L"DESCRIPTION:\n        SC talks to the service control manager.\nUSAGE:\n"
               L"        sc query|queryex [service] [type= service|driver|all] [state= active|inactive|all]\n"
               L"        sc qc|qdescription service\n"
               L"        sc create service binPath= path [type= own|share|kernel] [start= auto|demand|disabled]\n"
               L"                  [error= normal|severe|critical|ignore] [depend= a/b] [obj= account]\n"
               L"                  [DisplayName= name] [password= word]\n"
               L"        sc config service [the same]\n"
               L"        sc description service text\n"
               L"        sc start service [argument...]     sc stop|pause|continue|interrogate service\n"
               L"        sc control service number          sc delete service\n"
               L"        sc failure|sidtype|privs|sdset are taken and have no effect.\n");
}

static int error_of(const WCHAR *function, DWORD error)
{
    print(L"[SC] %s FAILED %lu:\n\n%s\n\n", function, error, error_text(error));
    return (int)error;
}

static const WCHAR *type_name(DWORD type)
{
    switch (type & 0x3f) {
    case SERVICE_KERNEL_DRIVER: return L"KERNEL_DRIVER";
    case SERVICE_FILE_SYSTEM_DRIVER: return L"FILE_SYSTEM_DRIVER";
    case SERVICE_WIN32_OWN_PROCESS: return L"WIN32_OWN_PROCESS";
    case SERVICE_WIN32_SHARE_PROCESS: return L"WIN32_SHARE_PROCESS";
    default: return L"";
    }
}

static const WCHAR *state_name(DWORD state)
{
    static const WCHAR *names[] = { L"", L"STOPPED", L"START_PENDING", L"STOP_PENDING", L"RUNNING",
                                    L"CONTINUE_PENDING", L"PAUSE_PENDING", L"PAUSED" };
    return state < 8 ? names[state] : L"";
}

static void show_status(const WCHAR *name, const WCHAR *display, const SERVICE_STATUS_PROCESS *s, BOOL more)
{
    print(L"\nSERVICE_NAME: %s\n", name);
    if (display)
        print(L"DISPLAY_NAME: %s\n", display);
    print(L"        TYPE               : %lx  %s  \n", s->dwServiceType, type_name(s->dwServiceType));
    print(L"        STATE              : %lu  %s \n", s->dwCurrentState, state_name(s->dwCurrentState));
    print(L"                                (%s, %s, %s)\n",
          s->dwControlsAccepted & SERVICE_ACCEPT_STOP ? L"STOPPABLE" : L"NOT_STOPPABLE",
          s->dwControlsAccepted & SERVICE_ACCEPT_PAUSE_CONTINUE ? L"PAUSABLE" : L"NOT_PAUSABLE",
          s->dwControlsAccepted & SERVICE_ACCEPT_SHUTDOWN ? L"ACCEPTS_SHUTDOWN" : L"IGNORES_SHUTDOWN");
    print(L"        WIN32_EXIT_CODE    : %lu  (0x%lx)\n", s->dwWin32ExitCode, s->dwWin32ExitCode);
    print(L"        SERVICE_EXIT_CODE  : %lu  (0x%lx)\n", s->dwServiceSpecificExitCode,
          s->dwServiceSpecificExitCode);
    print(L"        CHECKPOINT         : 0x%lx\n        WAIT_HINT          : 0x%lx\n", s->dwCheckPoint,
          s->dwWaitHint);
    if (more)
        print(L"        PID                : %lu\n        FLAGS              : \n", s->dwProcessId);
}

static SC_HANDLE open_service(const WCHAR *name, DWORD access, int *code)
{
    SC_HANDLE service = OpenServiceW(manager, name, access);
    if (!service)
        *code = error_of(L"OpenService", GetLastError());
    return service;
}

static int query(int argc, WCHAR **argv, BOOL more)
{
    DWORD type = SERVICE_WIN32, state = SERVICE_ACTIVE, size = 0, count = 0, resume = 0;
    for (int i = 0; i < argc; i++) {
        const WCHAR *value = i + 1 < argc ? argv[i + 1] : L"";
        if (same(argv[i], L"type=")) {
            type = same(value, L"driver") ? SERVICE_DRIVER
                : same(value, L"all")     ? SERVICE_DRIVER | SERVICE_WIN32
                                          : SERVICE_WIN32;
            i++;
        } else if (same(argv[i], L"state=")) {
            state = same(value, L"all")    ? SERVICE_STATE_ALL
                : same(value, L"inactive") ? SERVICE_INACTIVE
                                           : SERVICE_ACTIVE;
            i++;
        } else if (same(argv[i], L"bufsize=") || same(argv[i], L"ri=") || same(argv[i], L"group=")) {
            i++;
        } else {
            SERVICE_STATUS_PROCESS status;
            SC_HANDLE service = OpenServiceW(manager, argv[i], SERVICE_QUERY_STATUS);
            if (!service)
                return error_of(L"EnumQueryServicesStatus:OpenService", GetLastError());
            if (!QueryServiceStatusEx(service, SC_STATUS_PROCESS_INFO, (BYTE *)&status, sizeof(status), &size))
                return error_of(L"QueryServiceStatusEx", GetLastError());
            show_status(argv[i], NULL, &status, more);
            return 0;
        }
    }
    EnumServicesStatusExW(manager, SC_ENUM_PROCESS_INFO, type, state, NULL, 0, &size, &count, &resume, NULL);
    size += 65536;
    ENUM_SERVICE_STATUS_PROCESSW *list = allocate(size);
    resume = 0;
    if (!EnumServicesStatusExW(manager, SC_ENUM_PROCESS_INFO, type, state, (BYTE *)list, size, &size, &count,
                               &resume, NULL))
        return error_of(L"EnumServicesStatusEx", GetLastError());
    for (DWORD i = 0; i < count; i++)
        show_status(list[i].lpServiceName, list[i].lpDisplayName, &list[i].ServiceStatusProcess, more);
    return 0;
}

static int show_config(const WCHAR *name)
{
    static const WCHAR *starts[] = { L"BOOT_START", L"SYSTEM_START", L"AUTO_START", L"DEMAND_START", L"DISABLED" };
    static const WCHAR *errors[] = { L"IGNORE", L"NORMAL", L"SEVERE", L"CRITICAL" };
    int code = 0;
    DWORD size = 0;
    SC_HANDLE service = open_service(name, SERVICE_QUERY_CONFIG, &code);
    if (!service)
        return code;
    QueryServiceConfigW(service, NULL, 0, &size);
    QUERY_SERVICE_CONFIGW *c = allocate(size + 16);
    if (!QueryServiceConfigW(service, c, size, &size))
        return error_of(L"QueryServiceConfig", GetLastError());
    print(L"[SC] QueryServiceConfig SUCCESS\n\nSERVICE_NAME: %s\n", name);
    print(L"        TYPE               : %lx  %s \n", c->dwServiceType, type_name(c->dwServiceType));
    print(L"        START_TYPE         : %lu   %s\n", c->dwStartType, c->dwStartType < 5 ? starts[c->dwStartType] : L"");
    print(L"        ERROR_CONTROL      : %lu   %s\n", c->dwErrorControl,
          c->dwErrorControl < 4 ? errors[c->dwErrorControl] : L"");
    print(L"        BINARY_PATH_NAME   : %s\n        LOAD_ORDER_GROUP   : %s\n        TAG                : %lu\n",
          c->lpBinaryPathName ? c->lpBinaryPathName : L"", c->lpLoadOrderGroup ? c->lpLoadOrderGroup : L"", c->dwTagId);
    print(L"        DISPLAY_NAME       : %s\n        DEPENDENCIES       : ", c->lpDisplayName ? c->lpDisplayName : L"");
    const WCHAR *d = c->lpDependencies;
    for (BOOL first = TRUE; d && *d; d += wcslen(d) + 1, first = FALSE)
        print(first ? L"%s\n" : L"                           : %s\n", d);
    if (!c->lpDependencies || !*c->lpDependencies)
        print_text(L"\n");
    print(L"        SERVICE_START_NAME : %s\n", c->lpServiceStartName ? c->lpServiceStartName : L"");
    return 0;
}

static int show_description(const WCHAR *name)
{
    int code = 0;
    DWORD size = 0;
    SC_HANDLE service = open_service(name, SERVICE_QUERY_CONFIG, &code);
    if (!service)
        return code;
    SERVICE_DESCRIPTIONW *d = allocate(16384);
    if (!QueryServiceConfig2W(service, SERVICE_CONFIG_DESCRIPTION, (BYTE *)d, 16384, &size))
        return error_of(L"QueryServiceConfig2", GetLastError());
    print(L"[SC] QueryServiceConfig2 SUCCESS\n\nSERVICE_NAME: %s\nDESCRIPTION:  %s\n", name,
          d->lpDescription ? d->lpDescription : L"");
    return 0;
}

struct config {
    DWORD type, start, error;
    BOOL delayed;
    const WCHAR *path, *group, *account, *password, *display;
    WCHAR *depends;
};

static int bad_value(const WCHAR *what)
{
    print(L"ERROR:  Invalid %s Field\n", what);
    usage();
    return ERROR_INVALID_COMMAND_LINE;
}

static int parse_config(int argc, WCHAR **argv, struct config *c)
{
    for (int i = 0; i < argc; i += 2) {
        /* "name= value" are two words; "name=value" is taken as well. */
        WCHAR *name = argv[i], *equals = wcschr(name, '=');
        const WCHAR *value = i + 1 < argc ? argv[i + 1] : L"";
        if (!equals)
            return bad_value(name);
        if (equals[1]) {
            value = equals + 1;
            i--;
        }
        *equals = 0;
        if (same(name, L"binpath")) c->path = value;
        else if (same(name, L"displayname")) c->display = value;
        else if (same(name, L"group")) c->group = value;
        else if (same(name, L"obj")) c->account = value;
        else if (same(name, L"password")) c->password = value;
        else if (same(name, L"tag")) continue;
        else if (same(name, L"type")) {
            c->type = same(value, L"own")   ? SERVICE_WIN32_OWN_PROCESS
                : same(value, L"share")     ? SERVICE_WIN32_SHARE_PROCESS
                : same(value, L"kernel")    ? SERVICE_KERNEL_DRIVER
                : same(value, L"filesys")   ? SERVICE_FILE_SYSTEM_DRIVER
                : same(value, L"interact")  ? SERVICE_WIN32_OWN_PROCESS | SERVICE_INTERACTIVE_PROCESS
                                            : 0;
            if (!c->type)
                return bad_value(L"type");
        } else if (same(name, L"start")) {
            c->delayed = same(value, L"delayed-auto");
            c->start = same(value, L"boot")     ? SERVICE_BOOT_START
                : same(value, L"system")        ? SERVICE_SYSTEM_START
                : same(value, L"auto") || c->delayed ? SERVICE_AUTO_START
                : same(value, L"demand")        ? SERVICE_DEMAND_START
                : same(value, L"disabled")      ? SERVICE_DISABLED
                                                : 99;
            if (c->start == 99)
                return bad_value(L"start");
        } else if (same(name, L"error")) {
            c->error = same(value, L"ignore") ? SERVICE_ERROR_IGNORE
                : same(value, L"severe")      ? SERVICE_ERROR_SEVERE
                : same(value, L"critical")    ? SERVICE_ERROR_CRITICAL
                                              : SERVICE_ERROR_NORMAL;
        } else if (same(name, L"depend")) {
            c->depends = allocate((wcslen(value) + 2) * sizeof(WCHAR));
            wcscpy(c->depends, value);
            for (size_t n = wcslen(value); n--;)
                if (c->depends[n] == '/')
                    c->depends[n] = 0;
        } else {
            return bad_value(name);
        }
    }
    return 0;
}

static int create(const WCHAR *name, int argc, WCHAR **argv)
{
    struct config c = { .type = SERVICE_WIN32_OWN_PROCESS, .start = SERVICE_DEMAND_START, .error = SERVICE_ERROR_NORMAL };
    int code = parse_config(argc, argv, &c);
    if (code)
        return code;
    if (!c.path)
        return bad_value(L"binPath=");
    SC_HANDLE service = CreateServiceW(manager, name, c.display ? c.display : name, SERVICE_ALL_ACCESS, c.type, c.start,
                                       c.error, c.path, c.group, NULL, c.depends, c.account, c.password);
    if (!service)
        return error_of(L"CreateService", GetLastError());
    print_text(L"[SC] CreateService SUCCESS\n");
    return 0;
}

static int change(const WCHAR *name, int argc, WCHAR **argv)
{
    struct config c = { SERVICE_NO_CHANGE, SERVICE_NO_CHANGE, SERVICE_NO_CHANGE, FALSE, NULL, NULL, NULL, NULL, NULL, NULL };
    int code = parse_config(argc, argv, &c);
    if (code)
        return code;
    SC_HANDLE service = open_service(name, SERVICE_CHANGE_CONFIG, &code);
    if (!service)
        return code;
    if (!ChangeServiceConfigW(service, c.type, c.start, c.error, c.path, c.group, NULL, c.depends, c.account, c.password,
                              c.display))
        return error_of(L"ChangeServiceConfig", GetLastError());
    print_text(L"[SC] ChangeServiceConfig SUCCESS\n");
    return 0;
}

static int describe(const WCHAR *name, const WCHAR *text)
{
    int code = 0;
    SERVICE_DESCRIPTIONW d = { (WCHAR *)text };
    SC_HANDLE service = open_service(name, SERVICE_CHANGE_CONFIG, &code);
    if (!service)
        return code;
    if (!ChangeServiceConfig2W(service, SERVICE_CONFIG_DESCRIPTION, &d))
        return error_of(L"ChangeServiceConfig2", GetLastError());
    print_text(L"[SC] ChangeServiceConfig2 SUCCESS\n");
    return 0;
}

static int begin(const WCHAR *name, int argc, WCHAR **argv)
{
    int code = 0;
    DWORD size;
    SERVICE_STATUS_PROCESS status;
    SC_HANDLE service = open_service(name, SERVICE_START | SERVICE_QUERY_STATUS, &code);
    if (!service)
        return code;
    if (!StartServiceW(service, argc, (const WCHAR **)argv))
        return error_of(L"StartService", GetLastError());
    if (QueryServiceStatusEx(service, SC_STATUS_PROCESS_INFO, (BYTE *)&status, sizeof(status), &size))
        show_status(name, NULL, &status, TRUE);
    return 0;
}

static int control(const WCHAR *name, DWORD what)
{
    int code = 0;
    SERVICE_STATUS_PROCESS status = { 0 };
    SC_HANDLE service = open_service(name, SERVICE_STOP | SERVICE_PAUSE_CONTINUE | SERVICE_INTERROGATE
                                               | SERVICE_USER_DEFINED_CONTROL | SERVICE_QUERY_STATUS, &code);
    if (!service)
        return code;
    if (!ControlService(service, what, (SERVICE_STATUS *)&status)) {
        DWORD error = GetLastError(), size;
        /* Wine says that its pipe broke when the service ended while it was being told to. */
        if (error != ERROR_BROKEN_PIPE || what != SERVICE_CONTROL_STOP
            || !QueryServiceStatusEx(service, SC_STATUS_PROCESS_INFO, (BYTE *)&status, sizeof(status), &size))
            return error_of(L"ControlService", error);
    }
    show_status(name, NULL, &status, FALSE);
    return 0;
}

int program(int argc, WCHAR **argv)
{
    if (argc > 1 && argv[1][0] == '\\' && argv[1][1] == '\\')
        return failed(L"Other computers' services are not supported.");
    const WCHAR *verb = argc > 1 ? argv[1] : L"", *name = argc > 2 ? argv[2] : NULL;
    static const WCHAR *verbs[] = { L"query", L"queryex", L"qc", L"qdescription", L"create", L"config", L"description",
                                    L"start", L"stop", L"pause", L"continue", L"interrogate", L"control", L"delete",
                                    L"failure", L"failureflag", L"sidtype", L"privs", L"sdset" };
    unsigned k = 0, count = sizeof(verbs) / sizeof(*verbs);
    while (k < count && !same(verb, verbs[k]))
        k++;
    if (k == count || (k > 1 && !name)) {
        if (*verb && !same(verb, L"/?") && k == count)
            print(L"*** Unrecognized or unsupported command: %s ***\n", verb);
        usage();
        return *verb && !same(verb, L"/?") ? ERROR_INVALID_COMMAND_LINE : 0;
    }
    manager = OpenSCManagerW(NULL, NULL, SC_MANAGER_CONNECT | SC_MANAGER_ENUMERATE_SERVICE
                                             | (k == 4 ? SC_MANAGER_CREATE_SERVICE : 0));
    if (!manager)
        return error_of(L"OpenSCManager", GetLastError());
    int code = 0;
    ULONGLONG number;
    SC_HANDLE service;
    switch (k) {
    case 0: return query(argc - 2, argv + 2, FALSE);
    case 1: return query(argc - 2, argv + 2, TRUE);
    case 2: return show_config(name);
    case 3: return show_description(name);
    case 4: return create(name, argc - 3, argv + 3);
    case 5: return change(name, argc - 3, argv + 3);
    case 6: return describe(name, argc > 3 ? argv[3] : L"");
    case 7: return begin(name, argc - 3, argv + 3);
    case 8: return control(name, SERVICE_CONTROL_STOP);
    case 9: return control(name, SERVICE_CONTROL_PAUSE);
    case 10: return control(name, SERVICE_CONTROL_CONTINUE);
    case 11: return control(name, SERVICE_CONTROL_INTERROGATE);
    case 12:
        if (argc < 4 || !parse_number(argv[3], &number))
            return bad_value(L"control");
        return control(name, (DWORD)number);
    case 13:
        if (!(service = open_service(name, DELETE, &code)))
            return code;
        if (!DeleteService(service))
            return error_of(L"DeleteService", GetLastError());
        print_text(L"[SC] DeleteService SUCCESS\n");
        return 0;
    default:
        if (!open_service(name, SERVICE_QUERY_CONFIG, &code))
            return code;
        print_text(L"[SC] ChangeServiceConfig2 SUCCESS\n");
        complain(L"sc: %s has no effect in this container\n", verb);
        return 0;
    }
}
