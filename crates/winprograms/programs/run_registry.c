/*
 * The registry's files, written soon after a change: Wine's server does it every half minute and
 * at its end, so a container that is killed would lose what it set before.
 *
 * What is written is what the server itself writes, next to its files, and takes their place as a
 * whole. The server does not keep them open, and writes its own in the same way.
 */
#include "run.h"
#include "registry.h"

NTSTATUS NTAPI NtNotifyChangeKey(HANDLE, HANDLE, void *, void *, IO_STATUS_BLOCK *, ULONG, BOOLEAN,
                                 void *, ULONG, BOOLEAN);
NTSTATUS NTAPI NtOpenKey(HANDLE *, ACCESS_MASK, const OBJECT_ATTRIBUTES *);

/* Milliseconds from the first change to the writing. HKLM takes some 20 to write. */
enum { DELAY = 500 };

static struct branch {
    const WCHAR *name;
    HANDLE key, event;
    BOOL changed;
} branches[REGISTRY_EVENTS] = { { .name = L"\\Registry\\Machine" }, { .name = L"\\Registry\\User" } };

static DWORD first_change;

static BOOL watch(struct branch *branch)
{
    static IO_STATUS_BLOCK io;
    branch->changed = FALSE;
    return NtNotifyChangeKey(branch->key, branch->event, NULL, NULL, &io,
                             REG_NOTIFY_CHANGE_NAME | REG_NOTIFY_CHANGE_LAST_SET, TRUE, NULL, 0,
                             TRUE)
        >= 0;
}

DWORD watch_registry(HANDLE *events)
{
    if (allow_saving() < 0)
        return 0;
    for (DWORD i = 0; i < REGISTRY_EVENTS; i++) {
        struct branch *branch = &branches[i];
        OBJECT_ATTRIBUTES attributes;
        UNICODE_STRING name;
        object(&attributes, &name, branch->name, OBJ_CASE_INSENSITIVE);
        branch->event = CreateEventW(NULL, FALSE, FALSE, NULL);
        if (!branch->event || NtOpenKey(&branch->key, KEY_NOTIFY, &attributes) < 0
            || !watch(branch))
            return i;
        events[i] = branch->event;
    }
    return REGISTRY_EVENTS;
}

void registry_changed(DWORD event)
{
    BOOL waits = FALSE;
    for (DWORD i = 0; i < REGISTRY_EVENTS; i++)
        waits |= branches[i].changed;
    if (!waits)
        first_change = GetTickCount();
    branches[event].changed = TRUE;
}

DWORD registry_patience(void)
{
    for (DWORD i = 0; i < REGISTRY_EVENTS; i++) {
        if (branches[i].changed) {
            DWORD passed = GetTickCount() - first_change;
            return passed < DELAY ? DELAY - passed : 0;
        }
    }
    return INFINITE;
}

static void write_branch(const UNICODE_STRING *key, const WCHAR *file)
{
    WCHAR aside[128];
    const WCHAR *from = path(L"registry");
    for (unsigned i = 0; i < 128 && (aside[i] = from[i]); i++)
        ;
    if (save_key(key, aside) >= 0)
        MoveFileExW(aside, file, MOVEFILE_REPLACE_EXISTING);
}

void write_registry(void)
{
    UNICODE_STRING name;
    if (branches[0].changed) {
        /* Changes from here on are for the next time. */
        watch(&branches[0]);
        RtlInitUnicodeString(&name, L"\\Registry\\Machine");
        write_branch(&name, L"\\\\?\\unix\\prefix\\system.reg");
    }
    if (branches[1].changed) {
        watch(&branches[1]);
        RtlInitUnicodeString(&name, L"\\Registry\\User\\.Default");
        write_branch(&name, L"\\\\?\\unix\\prefix\\userdef.reg");
        if (current_user(&name) >= 0) {
            write_branch(&name, L"\\\\?\\unix\\prefix\\user.reg");
            RtlFreeUnicodeString(&name);
        }
    }
}
