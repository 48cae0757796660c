#include "registry.h"

NTSTATUS NTAPI NtOpenKey(HANDLE *, ACCESS_MASK, const OBJECT_ATTRIBUTES *);
NTSTATUS NTAPI NtSaveKey(HANDLE, HANDLE);
NTSTATUS NTAPI RtlAdjustPrivilege(ULONG, BOOLEAN, BOOLEAN, BOOLEAN *);
NTSTATUS NTAPI RtlFormatCurrentUserKeyPath(UNICODE_STRING *);

enum { BACKUP_PRIVILEGE = 17 };

NTSTATUS allow_saving(void)
{
    BOOLEAN before;
    return RtlAdjustPrivilege(BACKUP_PRIVILEGE, TRUE, FALSE, &before);
}

NTSTATUS current_user(UNICODE_STRING *name)
{
    return RtlFormatCurrentUserKeyPath(name);
}

NTSTATUS save_key(const UNICODE_STRING *name, const WCHAR *path)
{
    OBJECT_ATTRIBUTES attributes;
    HANDLE key;
    InitializeObjectAttributes(&attributes, (UNICODE_STRING *)name, OBJ_CASE_INSENSITIVE, NULL,
                               NULL);
    NTSTATUS status = NtOpenKey(&key, KEY_READ, &attributes);
    if (status < 0)
        return status;
    HANDLE file = CreateFileW(path, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    if (file == INVALID_HANDLE_VALUE) {
        NtClose(key);
        return (NTSTATUS)0xc0000022;
    }
    status = NtSaveKey(key, file);
    CloseHandle(file);
    NtClose(key);
    return status;
}
