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

#define PTY_COLS_DEFAULT 80U
#define PTY_ROWS_DEFAULT 24U
#define PTY_TERM_DEFAULT "xterm-256color"

typedef struct SpecPty {
        bool wanted;
        uint32_t cols, rows;
} SpecPty;

typedef struct Spec {
        char *cmd; /* a terminal's may be absent: the user's login shell */
        char **args;
        char **env; /* "NAME=value" */
        char *cwd, *user, *tag;
        uint64_t timeout_usec; /* 0: none */
        bool with_stdin;
        bool keep; /* on_disconnect=keep */
        bool shell_fallback;
        bool batch;  /* output may wait a little, so that all goes in one piece */
        SpecPty pty; /* runs on a terminal */
} Spec;

void spec_done(Spec *s);

/* Within 1…PTY_COLS_MAX, 1…PTY_ROWS_MAX. */
bool pty_size_is_valid(uint32_t cols, uint32_t rows);

/* Text of FRAME_SPEC. FAULT_INVALID_ARGS names the member. */
int spec_parse(const char *text, size_t n, Spec *ret, Fault *reterr);

/* "" or "~": home; "~/x" and relative ones below home; else as it is. NULL on out of memory. */
char* spec_resolve_cwd(const Spec *s, const char *home);
/* From scratch: PATH, HOME, USER, LOGNAME, on a terminal TERM, then defaults, then the request's; a later
 * one of the same name wins. -ENOMEM. */
int spec_build_env(const Spec *s, const User *u, char *const *defaults, char ***ret);
/*
 * args given: cmd and args. Else cmd alone if it is the path of an executable file (relative to cwd) or the
 * shell is not wanted, else /bin/sh -c cmd. -ENOMEM.
 */
int spec_build_argv(const Spec *s, const char *cwd, char ***ret);
/* What execvp(3) would try: file itself when it has a '/', else one path for each element of the PATH in
 * env. -ENOMEM. */
int spec_build_candidates(const char *file, char *const *env, char ***ret);
/* Without a cmd: the user's shell, told by "-bash" that it is a login shell; /bin/sh where that is not
 * there. -ENOMEM. */
int spec_build_login(const User *u, char ***ret_argv, char ***ret_candidates);
/* Value of NAME in a "NAME=value" vector, or NULL. */
const char* env_get(char *const *env, const char *name);
