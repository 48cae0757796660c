#include "walk.h"

static struct entries begin(const WCHAR *pattern, WCHAR *directory)
{
    struct entries entries = { .directory = directory };
    entries.find = FindFirstFileW(pattern, &entries.data);
    return entries;
}

struct entries entries_of(const WCHAR *directory)
{
    WCHAR *all = join(directory, L"*");
    struct entries entries = begin(all, copy_text(directory));
    release(all);
    return entries;
}

struct entries entries_like(const WCHAR *pattern)
{
    WCHAR *directory = copy_text(pattern), *last = wcsrchr(directory, '\\');
    *(last ? last + 1 : directory) = 0;
    return begin(pattern, directory);
}

BOOL next_entry(struct entries *entries)
{
    release(entries->path);
    entries->path = NULL;
    while (entries->find != INVALID_HANDLE_VALUE) {
        if (entries->begun && !FindNextFileW(entries->find, &entries->data))
            break;
        entries->begun = TRUE;
        if (!is_dots(entries->data.cFileName)) {
            entries->path = join(entries->directory, entries->data.cFileName);
            return TRUE;
        }
    }
    end_entries(entries);
    return FALSE;
}

void end_entries(struct entries *entries)
{
    if (entries->find != INVALID_HANDLE_VALUE)
        FindClose(entries->find);
    release(entries->path);
    release(entries->directory);
    entries->path = entries->directory = NULL;
    entries->find = INVALID_HANDLE_VALUE;
}

BOOL has_wildcards(const WCHAR *path)
{
    return wcschr(path, '*') || wcschr(path, '?');
}

BOOL is_directory(DWORD attributes)
{
    return (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
}

BOOL is_own_directory(DWORD attributes)
{
    return is_directory(attributes) && !(attributes & FILE_ATTRIBUTE_REPARSE_POINT);
}

ULONGLONG file_size(const WIN32_FIND_DATAW *data)
{
    return ((ULONGLONG)data->nFileSizeHigh << 32) | data->nFileSizeLow;
}

ULONGLONG file_time(const FILETIME *time)
{
    return ((ULONGLONG)time->dwHighDateTime << 32) | time->dwLowDateTime;
}
