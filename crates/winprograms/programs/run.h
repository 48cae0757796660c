/* What the parts of silo-run share. */
#ifndef SILO_RUN_H
#define SILO_RUN_H

#include "native.h"

/* What `start` says. */
struct start {
    WCHAR *command, *application, *directory;
    WCHAR *environment; /* a block as for CreateProcess */
    BOOL restricted, terminal;
    COORD size;
};

extern HANDLE heap;
/* Set when the program has ended; none with a terminal. */
extern HANDLE stop;
extern HANDLE process;
extern DWORD process_id;
extern BOOL program_is_cmd;
/* The threads that pass on what the program writes. */
extern HANDLE output_pumps[2];

/* run.c */
void *base_function(const char *name);

/* run_control.c */
unsigned length(const WCHAR *text);
BOOL ends_with(const WCHAR *text, unsigned n, const WCHAR *end);
BOOL text_is(const char *a, const char *b);
BOOL key_is(const char *record, const char *key, const char **value);
BOOL parse_size(const char *text, COORD *size);
char *put(char *to, const char *text);
char *put_number(char *to, DWORD n);
void open_directory(void);
/* Whether this is the container's own program and no further one. */
BOOL is_first(void);
/* A file of the directory; valid until the next call. */
const WCHAR *path(const WCHAR *name);
void move_file(const WCHAR *from, const WCHAR *to);
void write_file(const WCHAR *name, const char *data, DWORD size);
char *read_file(const WCHAR *name, DWORD limit);
BOOL read_start(struct start *start);
void fail(const char *step, DWORD code) __attribute__((noreturn));

/* run_streams.c */
void connect_streams(STARTUPINFOW *startup);

/* run_console.c */
void resize(COORD size);
void serve_requests(void);
/* The event of the next byte from the FIFO; NULL when there is none. */
HANDLE open_wake(void);
/* Has the event set again at the next byte. */
void wait_for_wake(void);
BOOL WINAPI ignore_event(DWORD event);

/* run_narrow.c */
/* A function of kernelbase in a 32-bit process; NULL where it is not found. */
void *narrow_function(HANDLE process, const char *function);

/* run_services.c */
/* Tells services that all is shut down, where that is asked; waits until those have ended. */
void serve_services(void);
void wait_for_services(void);

/* run_registry.c */
enum { REGISTRY_EVENTS = 2 };
/* Puts events of changes there; how many. */
DWORD watch_registry(HANDLE *events);
void registry_changed(DWORD event);
/* Milliseconds until something is to be written. */
DWORD registry_patience(void);
void write_registry(void);

#endif
