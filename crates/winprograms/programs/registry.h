/* Keys of the registry written to files, in Wine's text form. */
#ifndef SILO_REGISTRY_H
#define SILO_REGISTRY_H

#include "native.h"

/* Has to succeed before save_key. */
NTSTATUS allow_saving(void);
NTSTATUS save_key(const UNICODE_STRING *name, const WCHAR *path);
/* The native name of HKEY_CURRENT_USER; to be kept. */
NTSTATUS current_user(UNICODE_STRING *name);

#endif
