/* Directories looked through, as most commands that take files do. */
#ifndef SILO_WALK_H
#define SILO_WALK_H

#include "../rt.h"

/*
 * What a directory holds, without . and ..:
 *     for (struct entries e = entries_of(path); next_entry(&e);)
 * uses e.data and e.path, which is the caller's for that round only. A loop that is left before
 * its end needs end_entries.
 */
struct entries {
    HANDLE find; /* INVALID_HANDLE_VALUE when it could not be opened; GetLastError says why */
    WIN32_FIND_DATAW data;
    WCHAR *path;
    WCHAR *directory;
    BOOL begun;
};

struct entries entries_of(const WCHAR *directory);
/* Those of the last name with * and ?. */
struct entries entries_like(const WCHAR *pattern);
BOOL next_entry(struct entries *entries);
void end_entries(struct entries *entries);

BOOL has_wildcards(const WCHAR *path);
BOOL is_directory(DWORD attributes);
/* A directory that is no link: links are not followed, for they may lead back. */
BOOL is_own_directory(DWORD attributes);
ULONGLONG file_size(const WIN32_FIND_DATAW *data);
ULONGLONG file_time(const FILETIME *time);

#endif
