/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * An agent without a guest: writes the ready byte, serves HTTP/2 as docs/PROTOCOLS.md §3 says, starts over
 * when the session ends. Processes are played: "cmd" of the spec says what happens.
 *
 *   echo ARG…   the arguments on stdout, "err\n" on stderr, exit 0
 *   cat         stdin to stdout until its end, exit 0
 *   yes         output without end, as fast as it is taken
 *   sleep       nothing, for ever
 *   false       exit 1
 *   no-cwd      400 invalid-args
 *   reset       the stream is reset
 *   drop        the whole session is cut
 *   garbage     bytes that are no HTTP/2
 *   stuck       the same, and it does not notice that the session is over
 *   lie         a frame type that does not exist
 *
 * A spec with "pty" makes a terminal, which gives back what is typed (so does one without "cmd") and ends
 * with exit code 5 at ^D. To attach to there is "tty", a terminal; "quiet" and "brief", processes with the
 * tail "tail", of which the latter exits with 3. GET /processes is an empty list. Paths that contain
 * one of these words answer so:
 *
 *   flood     200 and bytes without end, as fast as they are taken
 *   nonesuch  404 not-found
 *   mute      nothing
 *
 * Any other path answers 200 with the request's body; its method and path are in x-method and x-path.
 */

#include <systemd/sd-event.h>

#include "basic/macro.h"

typedef struct FakeAgent FakeAgent;

typedef struct FakeAgentOptions {
        uint32_t streams_max; /* 0: H2_STREAMS_MAX */
        bool silent;          /* no ready byte, no answer */
        bool wrong_protocol;  /* of another version */
        void (*on_poweroff)(void *userdata);
        void *userdata;
} FakeAgentOptions;

/* Takes fd on success. */
int fake_agent_new(sd_event *e, int fd, const FakeAgentOptions *options, FakeAgent **ret);
FakeAgent* fake_agent_free(FakeAgent *a);
DEFINE_CLEANUP(FakeAgent, fake_agent_free)

unsigned fake_agent_n_identities(const FakeAgent *a);     /* PUT /identity served */
unsigned fake_agent_n_open(const FakeAgent *a);           /* streams open now */
unsigned fake_agent_n_resets(const FakeAgent *a);         /* streams that ended with an error */
uint64_t fake_agent_bytes_sent(const FakeAgent *a);       /* by "yes" */
const char* fake_agent_last_identity(const FakeAgent *a); /* its body */
