/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The verbs: one table for the parser, --help and the tests. */

#include "ctl/ctl.h"

typedef struct Verb {
        const char *name;
        unsigned min, max;  /* arguments; VERB_ANY: any number */
        bool takes_command; /* options end at the second word: the rest is the command */
        bool local_files;   /* has a side here: with -H only as a stream, "-" */
        CtlVerb function;
        const char *arguments, *help;
} Verb;

#define VERB_ANY UINT32_MAX

/* Ends with a verb without a name. */
extern const Verb verbs[];

/*
 * A whole command line. 0: *ret_verb is to be run with *ret_arguments (NULL-terminated, borrowed from argv),
 * or help or version is asked for; else the exit status after having said why.
 */
int command_parse(CtlOptions *o, int argc, char **argv, const Verb **ret_verb, char ***ret_arguments);
void command_help(void);

/* The command line for ssh(1) that runs argv on o->host, whose -H is out of it already; NULL-terminated,
 * owned by the caller. tty: give it a terminal. 0 or -ENOMEM. */
int remote_command(const CtlOptions *o, int argc, char **argv, bool tty, char ***ret);
