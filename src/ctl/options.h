/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The command line's options: one table, one structure. The first word that is none is the verb; of a verb
 * that runs a command, options end at the second, so that the rest is the command's. */

#include "basic/macro.h"

typedef enum OutputMode {
        OUTPUT_TABLE,
        OUTPUT_JSON_SHORT,
        OUTPUT_JSON_PRETTY,
} OutputMode;

/* What the command line said; strings point into argv, vectors are owned. */
typedef struct CtlOptions {
        OutputMode output;
        bool all, quiet, legend, ask_password, force, follow, no_wait, interactive_stdin, tty, preserve;
        bool help, version; /* asked for instead of a verb */
        const char *host, *team, *default_template, *user, *cwd;
        uint64_t vcpus, memory_bytes, disk_bytes, timeout_usec; /* 0: the daemon's default */
        uint64_t lines;                                         /* UINT64_MAX: all */
        char **labels, **env;
} CtlOptions;

#define CTL_OPTIONS_DEFAULT ((CtlOptions) { .legend = true, .ask_password = true, .lines = UINT64_MAX })

/*
 * Options until the first word that is none (in_order), else anywhere: getopt(3) then moves the other words
 * behind them; optind is the first. A -H is taken out of argv, so that what is left can be said there: its
 * words become NULL or lose that letter. 0, or the exit status after having said why.
 */
int options_parse(CtlOptions *o, int argc, char **argv, bool in_order);
void options_done(CtlOptions *o);
/* What --help prints of them. */
extern const char options_help[];

/* Says on stderr what is wrong with the command line; EXIT_USAGE. */
int usage(const char *format, ...) _printf_(1, 2);
