/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A process in the guest for a caller that speaks no HTTP/2: its streams become pipes, a terminal becomes a
 * socket. Verbs 'exec' and 'attach' of control.sock. When nobody reads its output any more, a process of
 * 'exec' is killed, one that was attached is left, and a terminal of 'exec' is watched until its end.
 */

#include <systemd/sd-event.h>

#include "basic/limits.h"
#include "monitor/agent-link.h"

typedef struct GuestProcess GuestProcess;

typedef struct GuestProcessSpec {
        char **argv; /* empty: the user's login shell; terminals only */
        char **env;  /* "NAME=value" */
        char *cwd;
        char *user;
        char *tag;
        uint64_t timeout_usec;
        bool with_stdin;
        uint32_t cols, rows; /* 0: no terminal */
} GuestProcessSpec;

void guest_process_spec_done(GuestProcessSpec *s);

/* The message of verb 'exec'. *ret must be zeroed. */
int guest_process_spec_parse(json_t *message, GuestProcessSpec *ret, Fault *reterr);
/* What the agent wants to read; NULL on out of memory. */
char* guest_process_spec_to_json(const GuestProcessSpec *s);

typedef struct GuestProcessStart {
        uint32_t pid;
        const char *tag;
        bool pty;
        /* the caller's ends; [stdin] stdout stderr, or a terminal's socket. Take them by setting to -EBADF.
         */
        int *fds;
        size_t n_fds;
} GuestProcessStart;

typedef struct GuestProcessEnd {
        int64_t exit_code;
        int64_t signal;
        const char *reason; /* "exit", "signal", "timeout" or "lost" */
} GuestProcessEnd;

typedef struct GuestProcessHandlers {
        /* r 0: it runs. Else fault says why not, and on_exited does not follow; free g here or later. */
        void (*on_started)(GuestProcess *g, int r, const GuestProcessStart *start, const Fault *fault,
                           void *userdata);
        /* end NULL: its reader left, the process runs on. */
        void (*on_exited)(GuestProcess *g, uint32_t pid, const char *tag, const GuestProcessEnd *end,
                          void *userdata);
} GuestProcessHandlers;

/* handlers are borrowed. -ENOTCONN with a fault when the agent is not ready. */
int guest_process_start(sd_event *e, AgentLink *agent, const GuestProcessSpec *spec,
                        const GuestProcessHandlers *handlers, void *userdata, GuestProcess **ret,
                        Fault *reterr);
/* The same for one that runs, or ended lately: its tail, then what follows. selector: tag or pid. */
int guest_process_attach(sd_event *e, AgentLink *agent, const char *selector,
                         const GuestProcessHandlers *handlers, void *userdata, GuestProcess **ret,
                         Fault *reterr);
/* Kills it when it was started by this one and still runs and is no terminal; no callback afterwards. */
GuestProcess* guest_process_free(GuestProcess *g);
DEFINE_CLEANUP(GuestProcess, guest_process_free)
