/* A service that tells in C:\work what it is asked, and takes a moment to end. */
#include <windows.h>

static SERVICE_STATUS_HANDLE handle;
static SERVICE_STATUS status = { SERVICE_WIN32_OWN_PROCESS, SERVICE_RUNNING,
                                 SERVICE_ACCEPT_STOP | SERVICE_ACCEPT_SHUTDOWN, 0, 0, 0, 0 };
static HANDLE end;

static void tell(const char *name)
{
    CloseHandle(CreateFileA(name, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL));
}

static DWORD WINAPI control(DWORD code, DWORD type, void *data, void *context)
{
    if (code == SERVICE_CONTROL_STOP || code == SERVICE_CONTROL_SHUTDOWN) {
        tell("C:\\work\\told");
        status.dwCurrentState = SERVICE_STOP_PENDING;
        SetServiceStatus(handle, &status);
        SetEvent(end);
    }
    return 0;
}

static void WINAPI run(DWORD count, WCHAR **words)
{
    end = CreateEventW(NULL, TRUE, FALSE, NULL);
    handle = RegisterServiceCtrlHandlerExW(L"work", control, NULL);
    SetServiceStatus(handle, &status);
    tell("C:\\work\\running");
    WaitForSingleObject(end, INFINITE);
    Sleep(500);
    tell("C:\\work\\saved");
    status.dwCurrentState = SERVICE_STOPPED;
    SetServiceStatus(handle, &status);
}

int main(void)
{
    SERVICE_TABLE_ENTRYW table[] = { { L"work", run }, { 0 } };
    return !StartServiceCtrlDispatcherW(table);
}
