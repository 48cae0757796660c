/*
 * silo-save: writes the registry of a running container in Wine's text form.
 *
 *     \\?\unix\prefix\.silo\<name>\silo-save.exe <name>
 *
 * The engine puts it into a directory of its own, where it writes machine.reg (HKLM), default.reg
 * (HKU\.Default) and user.reg (HKCU), and runs it before a commit: Wine writes its registry's
 * files every half minute only, and cannot be asked to do it earlier.
 *
 * The exit code is 0 when all three are whole, else the status of what failed.
 */
#include "registry.h"

enum { NAME_LIMIT = 128, PATH_LIMIT = 192 };

static WCHAR path[PATH_LIMIT];
static unsigned folder_length;

static NTSTATUS save(const UNICODE_STRING *key_name, const WCHAR *file_name)
{
    unsigned i = 0;
    for (; file_name[i] && folder_length + i < PATH_LIMIT - 1; i++)
        path[folder_length + i] = file_name[i];
    path[folder_length + i] = 0;
    return save_key(key_name, path);
}

void start(void)
{
    UNICODE_STRING machine, standard, user;
    RtlInitUnicodeString(&machine, L"\\Registry\\Machine");
    RtlInitUnicodeString(&standard, L"\\Registry\\User\\.Default");
    const WCHAR *name = GetCommandLineW();
    for (const WCHAR *c = name; *c; c++)
        if (*c == ' ' && c[1] > ' ')
            name = c + 1;
    for (const WCHAR *c = L"\\\\?\\unix\\prefix\\.silo\\"; *c;)
        path[folder_length++] = *c++;
    while (*name > ' ' && *name != '"' && *name != '\\' && folder_length < NAME_LIMIT)
        path[folder_length++] = *name++;
    path[folder_length++] = '\\';
    NTSTATUS status = allow_saving();
    if (status >= 0)
        status = current_user(&user);
    if (status >= 0)
        status = save(&machine, L"machine.reg");
    if (status >= 0)
        status = save(&standard, L"default.reg");
    if (status >= 0)
        status = save(&user, L"user.reg");
    ExitProcess(status < 0 ? (UINT)status : 0);
}
