/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a client asks to run (docs/PROTOCOLS.md §3), and the rules that turn it into argv, environment and
 * directory. */

#include "agent/users.h"
#include "basic/fault.h"
#include "basic/macro.h"
#include "shared/json-field.h"

#define DEFAULT_PATH \
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games:/usr/local/games"

typedef struct Spec {
        char *cmd;
        char **args;
        char **env; /* "NAME=value" */
        char *cwd, *user, *tag;
        uint64_t timeout_usec; /* 0: none */
        bool with_stdin;
        bool keep; /* on_disconnect=keep */
        bool shell_fallback;
} Spec;

void spec_done(Spec *s);

/* Text of FRAME_SPEC. FAULT_INVALID_ARGS names the member. */
int spec_parse(const char *text, size_t n, Spec *ret, Fault *reterr);

/* "" or "~": home; "~/x" and relative ones below home; else as it is. NULL on out of memory. */
char* spec_resolve_cwd(const Spec *s, const char *home);
/* From scratch: PATH, HOME, USER, LOGNAME, then defaults, then the request's; a later one of the same name
 * wins. -ENOMEM. */
int spec_build_env(const Spec *s, const User *u, char *const *defaults, char ***ret);
/*
 * args given: cmd and args. Else cmd alone if it is the path of an executable file (relative to cwd) or the
 * shell is not wanted, else /bin/sh -c cmd. -ENOMEM.
 */
int spec_build_argv(const Spec *s, const char *cwd, char ***ret);
/* What execvp(3) would try: file itself when it has a '/', else one path for each element of the PATH in
 * env. -ENOMEM. */
int spec_build_candidates(const char *file, char *const *env, char ***ret);
/* Value of NAME in a "NAME=value" vector, or NULL. */
const char* env_get(char *const *env, const char *name);
