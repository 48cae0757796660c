/* What the parts of tar share. */
#ifndef SILO_TAR_H
#define SILO_TAR_H

#include "rt.h"

enum mode { NONE, CREATE, EXTRACT, LIST };

struct options {
    enum mode mode;
    BOOL verbose, gzip, zip, keep_old, to_stdout, no_times;
    unsigned strip;
    const WCHAR *exclude[32];
    unsigned excludes;
    WCHAR **names; /* what to pack, or patterns of what to unpack */
    int name_count;
    int result;
};

struct entry {
    WCHAR *name;   /* with slashes, as stored */
    WCHAR *target; /* of a link */
    char type;     /* '0' file, '1' hard link, '2' symbolic link, '5' directory, others as in tar */
    ULONGLONG size;
    LONGLONG time; /* seconds since 1970 */
};

extern struct options options;

void warn(const WCHAR *format, const WCHAR *name, const WCHAR *why);
BOOL excluded(const WCHAR *name);

/* Reads an archive of any kind that is known, and unpacks or lists it. */
void read_archive(HANDLE file);
/* Makes or shows one entry. Afterwards its bytes go to entry_data, and then entry_end is called. */
void entry_begin(const struct entry *entry);
BOOL entry_data(const unsigned char *data, size_t size);
void entry_end(void);
/* Times of directories, which writing into them would change. */
void entries_done(void);

void read_zip(HANDLE file);

#endif
