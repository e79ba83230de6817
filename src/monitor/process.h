/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A process in the guest for a caller that speaks no HTTP/2: its streams become pipes. It is bound to them:
 * when nobody reads its output any more, it is killed. Verb 'exec' of control.sock.
 */

#include <systemd/sd-event.h>

#include "basic/limits.h"
#include "monitor/agent-link.h"

typedef struct GuestProcess GuestProcess;

typedef struct GuestProcessSpec {
        char **argv;
        char **env; /* "NAME=value" */
        char *cwd;
        char *user;
        char *tag;
        uint64_t timeout_usec;
        bool with_stdin;
} GuestProcessSpec;

void guest_process_spec_done(GuestProcessSpec *s);

/* The message of verb 'exec'. *ret must be zeroed. */
int guest_process_spec_parse(json_t *message, GuestProcessSpec *ret, Fault *reterr);

typedef struct GuestProcessEnd {
        int64_t exit_code;
        int64_t signal;
        const char *reason; /* "exit", "signal", "timeout" or "lost" */
} GuestProcessEnd;

typedef struct GuestProcessHandlers {
        /* r 0: it runs; fds are the caller's ends (stdin only with with_stdin, else -EBADF): take them by
         * setting to -EBADF. Else fault says why not, and on_exited does not follow; free g here or later.
         */
        void (*on_started)(GuestProcess *g, int r, uint32_t pid, const char *tag, int fds[static 3],
                           const Fault *fault, void *userdata);
        void (*on_exited)(GuestProcess *g, uint32_t pid, const char *tag, const GuestProcessEnd *end,
                          void *userdata);
} GuestProcessHandlers;

/* handlers are borrowed. -ENOTCONN with a fault when the agent is not ready. */
int guest_process_start(sd_event *e, AgentLink *agent, const GuestProcessSpec *spec,
                        const GuestProcessHandlers *handlers, void *userdata, GuestProcess **ret,
                        Fault *reterr);
/* Kills it when it still runs; no callback afterwards. */
GuestProcess* guest_process_free(GuestProcess *g);
DEFINE_CLEANUP(GuestProcess, guest_process_free)
