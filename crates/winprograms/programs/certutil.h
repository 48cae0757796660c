/* What the parts of certutil share. */
#ifndef SILO_CERTUTIL_H
#define SILO_CERTUTIL_H

#include "rt.h"

/* certutil.c */
int command_failed(const WCHAR *verb, DWORD error);
/* A whole file; NULL, and the last error, when it cannot be read. */
unsigned char *read_all(const WCHAR *name, DWORD *size);
/* What base64, or hexadecimal digits, stand for; how many bytes. */
DWORD decode(const unsigned char *in, DWORD size, unsigned char *out, BOOL hex);

/* certstore.c */
int add_certificates(const WCHAR *store, const WCHAR *file, BOOL user);
int show_store(const WCHAR *store, const WCHAR *which, BOOL user);

#endif
