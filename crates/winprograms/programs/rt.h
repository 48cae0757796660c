/*
 * What Silo's commands share: the entry, text to the standard streams, Windows' error messages.
 * `program` is each command's main function; it returns the exit code.
 */
#ifndef SILO_RT_H
#define SILO_RT_H

#include <windows.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

int program(int argc, WCHAR **argv);

/* As printf: %s is wide text, %S is bytes. A line feed becomes CR LF. */
void print(const WCHAR *format, ...);
void complain(const WCHAR *format, ...);
/* Text of any length as it is. */
void print_text(const WCHAR *text);
void write_bytes(HANDLE stream, const void *data, DWORD size);

/* Windows' words for an error, without a line end; valid until the next call. */
const WCHAR *error_text(DWORD code);
/* "ERROR: <what>" on stderr; returns 1. */
int failed(const WCHAR *what);

BOOL same(const WCHAR *a, const WCHAR *b);
/* Whether an argument is the option, written with / or -, in any case. */
BOOL is_option(const WCHAR *argument, const WCHAR *name);
/* Like is_option for "/name:value"; gives the value. */
const WCHAR *option_value(const WCHAR *argument, const WCHAR *name);
/* Decimal; FALSE when the text is anything else or too big. */
BOOL parse_number(const WCHAR *text, ULONGLONG *number);
/* * and ? as in Windows' directory listings, in any case. */
BOOL matches(const WCHAR *name, const WCHAR *pattern);
BOOL is_dots(const WCHAR *name);
/* Lower case of one letter, by Unicode. */
WCHAR lower(WCHAR c);

void *allocate(size_t size); /* zeroed; ends the program when memory does */
void release(void *memory);
WCHAR *copy_text(const WCHAR *text);
/* directory\name; to be released. */
WCHAR *join(const WCHAR *directory, const WCHAR *name);
WCHAR *wide_text(const char *bytes, int size, UINT code_page);
WCHAR *format_text(const WCHAR *format, ...);

#endif
