/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The byte stream to the guest's agent. The agent is as hostile as the guest: until its ready byte
 * everything is dropped, then it gets one HTTP/2 session with us as the client; a session that breaks is
 * ended and the next ready byte is waited for, at most AGENT_FAULTS_MAX times. All requests of the session,
 * ours and those passed through, share its streams; beyond the agent's limit they queue here in order.
 */

#include <systemd/sd-event.h>

#include "basic/fault.h"
#include "basic/limits.h"
#include "shared/h2.h"
#include "shared/json-field.h"

#define AGENT_BOOT_USEC      (180 * USEC_PER_SEC) /* without a word after which it is reported as lost */
#define AGENT_IDENTITY_USEC  (30 * USEC_PER_SEC)  /* for the answer to PUT /identity */
#define AGENT_RETRY_USEC_MAX (30 * USEC_PER_SEC)  /* the times between later tries double up to this */
#define AGENT_RETRY_USEC     (2 * USEC_PER_SEC) /* from the loss of a session to a try without ready byte */
#define AGENT_FORGIVE_USEC                                                                            \
        (600 * USEC_PER_SEC)                /* of a good session after which its faults are forgotten \
                                             */
#define AGENT_ENDED_USEC (1 * USEC_PER_SEC) /* from the end of the stream to saying so */

typedef struct AgentLink AgentLink;
typedef struct AgentRequest AgentRequest;

/* What one request does; embedded in its owner's struct. Callbacks as in H2Handlers, once the stream is
 * open. */
typedef struct AgentRequestOps {
        /* Opens the stream with h2_session_request(…, userdata = rq, &rq->stream); -EAGAIN: called again
         * when there is room. */
        int (*open)(AgentRequest *rq, H2Session *s);
        void (*on_headers)(AgentRequest *rq);
        void (*on_data)(AgentRequest *rq, const void *data, size_t n);
        void (*on_end)(AgentRequest *rq);
        void (*on_writable)(AgentRequest *rq);
        /* The stream is gone, or never came: error as in H2Handlers. Last call; rq may be freed. */
        void (*on_close)(AgentRequest *rq, uint32_t error);
} AgentRequestOps;

struct AgentRequest {
        const AgentRequestOps *ops;
        AgentLink *link;    /* weak; NULL: not submitted, or closed */
        H2Stream *stream;   /* NULL while queued and after the end */
        AgentRequest *next; /* of the queue */
};

typedef struct AgentLinkHandlers {
        /* PUT /identity was answered. info: {"version","protocol","features"} with bounded, checked values;
         * borrowed. */
        void (*on_ready)(AgentLink *l, json_t *info, void *userdata);
        /* It was ready, or should be by now, and is not. text: one sentence. May be followed by on_ready. */
        void (*on_lost)(AgentLink *l, const char *text, void *userdata);
        /* optional: behind on_lost, no session will be tried again */
        void (*on_given_up)(AgentLink *l, const char *text, void *userdata);
} AgentLinkHandlers;

/* identity: body of PUT /identity without "entropy" and "realtime_usec", which are added at the moment; a
 * reference is taken. Takes fd on success. */
int agent_link_new(sd_event *e, int fd, json_t *identity, const AgentLinkHandlers *handlers, void *userdata,
                   AgentLink **ret);
/* Every request gets on_close. */
AgentLink* agent_link_free(AgentLink *l);
DEFINE_CLEANUP(AgentLink, agent_link_free)

bool agent_link_is_ready(const AgentLink *l);

/* Opens rq's stream now or when there is room. -ENOTCONN: the agent is not ready; -errno of ops->open. Then
 * on_close never runs. */
int agent_link_submit(AgentLink *l, AgentRequest *rq);

/* Forgets rq: its stream is reset with error, no callback runs afterwards. Fine for one that is not
 * submitted. */
void agent_request_cancel(AgentRequest *rq, uint32_t error);

/* Asks the guest to power off; nobody waits for the answer. -ENOTCONN as above. */
int agent_link_poweroff(AgentLink *l);
