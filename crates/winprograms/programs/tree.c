/* tree: shows a directory's subdirectories, and with /F its files. */
#include "common/walk.h"

static BOOL files, plain;
static ULONGLONG found;

struct names {
    WCHAR **list;
    unsigned count, room;
};

static int __cdecl order(const void *a, const void *b)
{
    return _wcsicmp(*(WCHAR *const *)a, *(WCHAR *const *)b);
}

static struct names names_in(const WCHAR *path, BOOL want_directories)
{
    struct names names = { 0 };
    for (struct entries e = entries_of(path); next_entry(&e);) {
        if (is_directory(e.data.dwFileAttributes) != want_directories)
            continue;
        if (names.count == names.room) {
            WCHAR **more = allocate((names.room = names.room * 2 + 16) * sizeof(WCHAR *));
            memcpy(more, names.list, names.count * sizeof(WCHAR *));
            release(names.list);
            names.list = more;
        }
        names.list[names.count++] = copy_text(e.data.cFileName);
    }
    qsort(names.list, names.count, sizeof(WCHAR *), order);
    return names;
}

static void show(const WCHAR *path, const WCHAR *indent)
{
    struct names inner = names_in(path, TRUE);
    if (files) {
        struct names own = names_in(path, FALSE);
        for (unsigned i = 0; i < own.count; i++)
            print(L"%s%s%s\n", indent, inner.count ? (plain ? L"|   " : L"\x2502   ") : L"    ", own.list[i]);
        if (own.count)
            print(L"%s%s\n", indent, inner.count ? (plain ? L"|" : L"\x2502") : L"");
    }
    for (unsigned i = 0; i < inner.count; i++) {
        BOOL last = i + 1 == inner.count;
        found++;
        print(L"%s%s%s\n", indent,
              plain ? (last ? L"\\---" : L"+---") : (last ? L"\x2514\x2500\x2500\x2500" : L"\x251c\x2500\x2500\x2500"),
              inner.list[i]);
        WCHAR *below = join(path, inner.list[i]);
        WCHAR *deeper = format_text(L"%s%s", indent, last ? L"    " : plain ? L"|   " : L"\x2502   ");
        show(below, deeper);
        release(below);
        release(deeper);
    }
}

int program(int argc, WCHAR **argv)
{
    WCHAR *path = NULL, current[MAX_PATH];
    for (int i = 1; i < argc; i++) {
        if (is_option(argv[i], L"?")) {
            print_text(L"TREE [drive:][path] [/F] [/A]\n\n   /F   Files as well.\n   /A   ASCII letters.\n");
            return 0;
        } else if (is_option(argv[i], L"f")) {
            files = TRUE;
        } else if (is_option(argv[i], L"a")) {
            plain = TRUE;
        } else if (!path) {
            path = argv[i];
        } else {
            complain(L"Too many parameters - %s\n", argv[i]);
            return 1;
        }
    }
    if (!path) {
        GetCurrentDirectoryW(MAX_PATH, current);
        path = current;
    }
    DWORD attributes = GetFileAttributesW(path);
    if (attributes == INVALID_FILE_ATTRIBUTES || !(attributes & FILE_ATTRIBUTE_DIRECTORY)) {
        print(L"Invalid path - %s\nNo subfolders exist\n\n", path);
        return 1;
    }
    print(L"Folder PATH listing\n%s\n", path);
    show(path, L"");
    if (!found)
        print_text(L"No subfolders exist\n\n");
    return 0;
}
