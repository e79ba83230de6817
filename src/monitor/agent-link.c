/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "monitor/agent-link.h"
#include "monitor/heartbeat.h"
#include "shared/event.h"
#include "shared/h2-conn.h"
#include "shared/protocol.h"

typedef enum LinkState {
        LINK_WAITING,  /* for the ready byte */
        LINK_IDENTITY, /* PUT /identity is under way */
        LINK_READY,
        LINK_DEAD, /* the stream ended, or too many faults */
} LinkState;

/* A request of the link's own, answered by a small body or by nothing. */
typedef struct OwnRequest {
        AgentRequest rq;
        const char *method, *path;
        bool busy;
        char *body;   /* to be sent; owned */
        char *answer; /* owned; kept for the identity only */
        size_t n_answer;
} OwnRequest;

struct AgentLink {
        sd_event *event; /* weak: outlives us */
        const AgentLinkHandlers *handlers;
        void *userdata;
        LinkState state;
        bool lost_told;
        unsigned n_faults;
        bool had_session;
        uint64_t retry_usec; /* to the next knock */
        uint64_t ready_usec; /* CLOCK_MONOTONIC, of the last session that became ready */
        int fd;
        sd_event_source *io_source, *timer, *refill_source;
        H2Conn *conn; /* on a duplicate of fd, of which only one is watched at a time */
        json_t *identity;
        AgentRequest *queue_head, *queue_tail;
        OwnRequest put_identity, poweroff;
        Heartbeat heartbeat;
};

static void link_wait(AgentLink *l);

static void tell_lost(AgentLink *l, const char *text) {
        if (l->lost_told)
                return;
        l->lost_told = true;
        l->handlers->on_lost(l, text, l->userdata);
}

static void link_die(AgentLink *l, const char *text) {
        l->state = LINK_DEAD;
        l->io_source = event_source_free(l->io_source);
        l->timer = event_source_free(l->timer);
        tell_lost(l, text);
        if (l->handlers->on_given_up)
                l->handlers->on_given_up(l, text, l->userdata);
}

/* One more broken session; those before a long good one are forgiven. false: that was one too many. */
static bool link_count_fault(AgentLink *l) {
        uint64_t now = now_usec(CLOCK_MONOTONIC);

        if (l->ready_usec > 0 && now - l->ready_usec >= AGENT_FORGIVE_USEC)
                l->n_faults = 0;
        l->ready_usec = 0;
        return ++l->n_faults < AGENT_FAULTS_MAX;
}

static int on_stream_ended(sd_event_source *s, uint64_t usec, void *userdata) {
        tell_lost(userdata, "The stream to the agent ended.");
        return 0;
}

/* As a rule the VMM is about to end, which says more than this does: wait for that. */
static void link_die_quietly(AgentLink *l) {
        l->state = LINK_DEAD;
        l->io_source = event_source_free(l->io_source);
        l->timer = event_source_free(l->timer);
        (void) event_timer(l->event, &l->timer, AGENT_ENDED_USEC, PRIORITY_VMM, on_stream_ended, l,
                           "agent-ended");
}

/* Requests */

static void queue_push(AgentLink *l, AgentRequest *rq) {
        rq->next = NULL;
        if (l->queue_tail)
                l->queue_tail->next = rq;
        else
                l->queue_head = rq;
        l->queue_tail = rq;
}

static void queue_remove(AgentLink *l, AgentRequest *rq) {
        AgentRequest **p = &l->queue_head, *previous = NULL;

        while (*p && *p != rq) {
                previous = *p;
                p = &(*p)->next;
        }
        if (!*p)
                return;
        *p = rq->next;
        if (l->queue_tail == rq)
                l->queue_tail = previous;
        rq->next = NULL;
}

static void request_closed(AgentRequest *rq, uint32_t error) {
        rq->stream = NULL;
        rq->link = NULL;
        rq->ops->on_close(rq, error);
}

/* Opens what the agent's limit lets in. One that cannot be opened for another reason fails alone. */
static int on_refill(sd_event_source *s, void *userdata) {
        AgentLink *l = userdata;

        while (l->queue_head && l->conn && l->state == LINK_READY) {
                AgentRequest *rq = l->queue_head;
                int r = rq->ops->open(rq, h2_conn_session(l->conn));

                if (r == -EAGAIN)
                        return 0;
                heartbeat_watch(&l->heartbeat, l->event);
                queue_remove(l, rq);
                if (r < 0)
                        request_closed(rq, H2_INTERNAL_ERROR);
        }
        return 0;
}

int agent_link_submit(AgentLink *l, AgentRequest *rq) {
        int r = -EAGAIN;

        assert(!rq->link);

        if (l->state != LINK_READY)
                return -ENOTCONN;
        if (!l->queue_head)
                r = rq->ops->open(rq, h2_conn_session(l->conn));
        if (r < 0 && r != -EAGAIN)
                return r;

        heartbeat_watch(&l->heartbeat, l->event);
        rq->link = l;
        if (r == -EAGAIN)
                queue_push(l, rq);
        return 0;
}

void agent_request_cancel(AgentRequest *rq, uint32_t error) {
        if (!rq->link)
                return;
        if (rq->stream) {
                h2_stream_set_userdata(rq->stream, NULL);
                (void) h2_stream_reset(rq->stream, error);
                rq->stream = NULL;
        } else
                queue_remove(rq->link, rq);
        rq->link = NULL;
}

/* Our own requests */

static int own_open(AgentRequest *rq, H2Session *s) {
        OwnRequest *o = container_of(rq, OwnRequest, rq);
        size_t n = o->body ? strlen(o->body) : 0;
        int r;

        r = h2_session_request(s, o->method, o->path, NULL, 0, /* end= */ n == 0, rq, &rq->stream);
        if (r < 0 || n == 0)
                return r;
        if (h2_stream_write(rq->stream, o->body, n) != (ssize_t) n)
                return -E2BIG;
        return h2_stream_end(rq->stream);
}

static void own_on_data(AgentRequest *rq, const void *data, size_t n) {
        OwnRequest *o = container_of(rq, OwnRequest, rq);
        char *p;

        h2_stream_consume(rq->stream, n);
        if (n > AGENT_JSON_MAX - o->n_answer) {
                (void) h2_stream_reset(rq->stream, H2_ENHANCE_YOUR_CALM);
                return;
        }
        p = realloc(o->answer, o->n_answer + n);
        if (!p) {
                (void) h2_stream_reset(rq->stream, H2_INTERNAL_ERROR);
                return;
        }
        o->answer = p;
        memcpy(o->answer + o->n_answer, data, n);
        o->n_answer += n;
}

static void own_nothing(AgentRequest *rq) {
}

static void own_clear(OwnRequest *o) {
        free(o->body);
        free(o->answer);
        o->body = o->answer = NULL;
        o->n_answer = 0;
        o->busy = false;
}

static void poweroff_on_close(AgentRequest *rq, uint32_t error) {
        own_clear(container_of(rq, OwnRequest, rq));
}

static const AgentRequestOps poweroff_ops = {
        .open = own_open,
        .on_headers = own_nothing,
        .on_data = own_on_data,
        .on_end = own_nothing,
        .on_writable = own_nothing,
        .on_close = poweroff_on_close,
};

int agent_link_poweroff(AgentLink *l) {
        OwnRequest *o = &l->poweroff;
        int r;

        if (o->busy)
                return 0;
        *o = (OwnRequest) { .rq.ops = &poweroff_ops, .method = "POST", .path = "/poweroff" };
        r = agent_link_submit(l, &o->rq);
        if (r < 0)
                return r;
        o->busy = true;
        return 0;
}

/* Identity */

static bool text_is_plain(const char *s) {
        if (!s || strlen(s) > AGENT_TEXT_MAX)
                return false;
        for (; *s; s++)
                if (*s < ' ' || *s > '~')
                        return false;
        return true;
}

/* The few members others may see, checked; what does not fit is left out. */
static json_t* agent_info(json_t *answer) {
        _cleanup_json_ json_t *features = json_array();
        const char *version = json_string_value(json_object_get(answer, "version"));
        json_t *list = json_object_get(answer, "features"), *item;
        size_t i;

        if (!features)
                return NULL;
        json_array_foreach(list, i, item) {
                if (json_array_size(features) >= AGENT_FEATURES_MAX)
                        break;
                if (text_is_plain(json_string_value(item)) && json_array_append(features, item) < 0)
                        return NULL;
        }
        return json_pack("{s:s, s:I, s:O}", "version", text_is_plain(version) ? version : "", "protocol",
                         json_integer_value(json_object_get(answer, "protocol")), "features", features);
}

/* NULL when the agent gave the right answer, with *ret_info; else what is wrong. */
static const char* identity_check(const OwnRequest *o, unsigned status, json_t **ret_info) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_json_ json_t *answer = NULL;

        if (status != 200)
                return "The agent refused its identity.";
        if (json_parse_text(o->answer ?: "", o->n_answer, &answer, &fault) < 0)
                return "The agent's answer is not valid.";
        if (json_integer_value(json_object_get(answer, "protocol")) != AGENT_PROTOCOL_VERSION)
                return "The agent speaks another version of the protocol.";
        *ret_info = agent_info(answer);
        return *ret_info ? NULL : "Out of memory.";
}

static void identity_on_end(AgentRequest *rq) {
        AgentLink *l = container_of(container_of(rq, OwnRequest, rq), AgentLink, put_identity);
        _cleanup_json_ json_t *info = NULL;
        const char *wrong;

        wrong = identity_check(&l->put_identity, h2_stream_status(rq->stream), &info);
        if (wrong) {
                tell_lost(l, wrong);
                return;
        }
        l->state = LINK_READY;
        l->ready_usec = now_usec(CLOCK_MONOTONIC);
        l->lost_told = false;
        (void) event_timer(l->event, &l->timer, USEC_INFINITY, PRIORITY_VMM, NULL, l, NULL);
        l->handlers->on_ready(l, info, l->userdata);
}

static void identity_on_close(AgentRequest *rq, uint32_t error) {
        AgentLink *l = container_of(container_of(rq, OwnRequest, rq), AgentLink, put_identity);

        own_clear(&l->put_identity);
        if (l->state == LINK_IDENTITY)
                tell_lost(l, "The agent did not take its identity.");
}

static const AgentRequestOps identity_ops = {
        .open = own_open,
        .on_headers = own_nothing,
        .on_data = own_on_data,
        .on_end = identity_on_end,
        .on_writable = own_nothing,
        .on_close = identity_on_close,
};

/* Fresh entropy and the time of this moment: the guest has no other source of either. */
static int identity_body(const AgentLink *l, char **ret) {
        _cleanup_json_ json_t *body = NULL;
        _cleanup_free_ char *base64 = NULL;
        uint8_t entropy[AGENT_ENTROPY_BYTES];

        if (getrandom(entropy, sizeof(entropy), 0) != (ssize_t) sizeof(entropy))
                return -errno;
        base64 = base64_encode(entropy, sizeof(entropy));
        explicit_bzero(entropy, sizeof(entropy));
        body = l->identity ? json_copy(l->identity) : json_object();
        if (!base64 || !body || json_object_set_new(body, "entropy", json_string(base64)) < 0 ||
            json_object_set_new(body, "realtime_usec", json_integer((json_int_t) now_usec(CLOCK_REALTIME))) <
                            0)
                return -ENOMEM;

        *ret = json_dumps(body, JSON_COMPACT);
        return *ret ? 0 : -ENOMEM;
}

static int send_identity(AgentLink *l) {
        OwnRequest *o = &l->put_identity;
        int r;

        own_clear(o);
        *o = (OwnRequest) { .rq.ops = &identity_ops, .method = "PUT", .path = "/identity" };
        r = identity_body(l, &o->body);
        if (r < 0)
                return r;
        r = own_open(&o->rq, h2_conn_session(l->conn));
        if (r < 0)
                return r;
        o->rq.link = l;
        return 0;
}

/* Session */

static AgentRequest* stream_request(H2Stream *st) {
        return h2_stream_userdata(st);
}

static void on_h2_headers(H2Stream *st, bool end, void *userdata) {
        AgentRequest *rq = stream_request(st);

        if (rq)
                rq->ops->on_headers(rq);
}

static void on_h2_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        AgentRequest *rq = stream_request(st);

        if (rq)
                rq->ops->on_data(rq, data, n);
        else
                h2_stream_consume(st, n);
}

static void on_h2_end(H2Stream *st, void *userdata) {
        AgentRequest *rq = stream_request(st);

        if (rq)
                rq->ops->on_end(rq);
}

static void on_h2_writable(H2Stream *st, void *userdata) {
        AgentRequest *rq = stream_request(st);

        if (rq)
                rq->ops->on_writable(rq);
}

static void on_h2_close(H2Stream *st, uint32_t error, void *userdata) {
        AgentRequest *rq = stream_request(st);
        AgentLink *l = userdata;

        if (rq)
                request_closed(rq, error);
        if (l->queue_head)
                (void) event_defer(l->event, &l->refill_source, PRIORITY_VMM, on_refill, l);
}

/* Queued requests die with the session: their callers are answered, not left waiting for a guest that may
 * never come back. */
static void link_end_session(AgentLink *l) {
        heartbeat_stop(&l->heartbeat);
        l->conn = h2_conn_free(l->conn);
        while (l->queue_head) {
                AgentRequest *rq = l->queue_head;

                queue_remove(l, rq);
                request_closed(rq, H2_CANCEL);
        }
}

static void on_conn_closed(H2Conn *c, int error, void *userdata) {
        AgentLink *l = userdata;
        bool was_ready = l->state == LINK_READY;

        l->state = LINK_WAITING;
        link_end_session(l);
        log_debug("Session with the agent ended: %s", error < 0 ? strerror(-error) : "end of file");
        if (error == 0 || error == -ECONNRESET || error == -EPIPE) {
                link_die_quietly(l);
                return;
        }
        if (was_ready)
                tell_lost(l, "The agent broke its session.");
        if (!link_count_fault(l)) {
                link_die(l, "The guest's agent broke too many sessions.");
                return;
        }
        link_wait(l);
}

static void on_goaway(H2Session *s, void *userdata) {
        log_debug("The agent is going away.");
}

static const H2ConnHandlers conn_handlers = {
        .h2 = {
                .on_headers = on_h2_headers,
                .on_data = on_h2_data,
                .on_end = on_h2_end,
                .on_writable = on_h2_writable,
                .on_close = on_h2_close,
                .on_goaway = on_goaway,
        },
        .on_closed = on_conn_closed,
};

static int on_identity_timeout(sd_event_source *s, uint64_t usec, void *userdata) {
        AgentLink *l = userdata;

        l->state = LINK_WAITING;
        tell_lost(l, "The agent did not answer in time.");
        link_end_session(l);
        if (!link_count_fault(l))
                link_die(l, "The guest's agent broke too many sessions.");
        else
                link_wait(l);
        return 0;
}

/* It may have hung, or its virtual machine is stopped: no fault, and it is asked on. */
static void on_silent(void *userdata) {
        AgentLink *l = userdata;

        l->state = LINK_WAITING;
        tell_lost(l, "The agent does not answer.");
        link_end_session(l);
        link_wait(l);
}

static int link_start_session(AgentLink *l) {
        /* callers who do not read are not to hold up the others */
        static const H2Limits limits = { .windows = H2_STREAMS_MAX };
        _cleanup_close_ int fd = -EBADF;
        int r;

        l->io_source = event_source_free(l->io_source);
        fd = fcntl(l->fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return -errno;
        r = h2_conn_new(l->event, fd, /* server= */ false, &conn_handlers, l, &limits, PRIORITY_VMM,
                        &l->conn);
        if (r < 0)
                return r;
        (void) TAKE_FD(fd);

        l->state = LINK_IDENTITY;
        l->had_session = true;
        heartbeat_start(&l->heartbeat, l->conn, HEARTBEAT_TICK_USEC, on_silent, l);
        r = event_timer(l->event, &l->timer, AGENT_IDENTITY_USEC, PRIORITY_VMM, on_identity_timeout, l,
                        "agent-identity");
        if (r < 0)
                return r;
        return send_identity(l);
}

static void link_try_session(AgentLink *l) {
        int r = link_start_session(l);

        if (r >= 0)
                return;
        l->conn = h2_conn_free(l->conn);
        (void) log_error_errno(r, "Failed to start a session with the agent: %m");
        link_die(l, "The monitor could not start a session with the agent.");
}

/* Waiting for the ready byte */

/* Takes what is there up to and including the ready byte; the agent may have begun its session right behind
 * it. */
static int on_waiting(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        AgentLink *l = userdata;
        char buffer[4096], *ready;
        ssize_t n;

        n = recv(fd, buffer, sizeof(buffer), MSG_PEEK | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) {
                link_die_quietly(l);
                return 0;
        }
        ready = memchr(buffer, AGENT_READY_BYTE, (size_t) n);
        (void) recv(fd, buffer, ready ? (size_t) (ready - buffer) + 1 : (size_t) n, MSG_DONTWAIT);
        if (ready)
                link_try_session(l);
        return 0;
}

/*
 * First wait: it should have come up by now. Later ones: it may still sit in the old session. These bytes
 * break a session and make a waiting agent say so again (docs/PROTOCOLS.md §3).
 */
static int on_wait_timeout(sd_event_source *s, uint64_t usec, void *userdata) {
        AgentLink *l = userdata;
        char knock[16];

        if (!l->had_session) {
                tell_lost(l, "The guest's agent did not start in time.");
                return 0;
        }
        memset(knock, AGENT_READY_BYTE, sizeof(knock));
        (void) send(l->fd, knock, sizeof(knock), MSG_DONTWAIT | MSG_NOSIGNAL);
        l->retry_usec = MIN(l->retry_usec * 2, AGENT_RETRY_USEC_MAX);
        (void) event_timer(l->event, &l->timer, l->retry_usec, PRIORITY_VMM, on_wait_timeout, l,
                           "agent-timeout");
        return 0;
}

static void link_wait(AgentLink *l) {
        int r;

        l->retry_usec = AGENT_RETRY_USEC;
        l->state = LINK_WAITING;
        l->timer = event_source_free(l->timer);
        r = event_io(l->event, &l->io_source, l->fd, EPOLLIN, PRIORITY_VMM, on_waiting, l, "agent-wait");
        if (r >= 0)
                r = event_timer(l->event, &l->timer, l->retry_usec, PRIORITY_VMM, on_wait_timeout, l,
                                "agent-timeout");
        if (r < 0) {
                (void) log_error_errno(r, "Failed to wait for the agent: %m");
                link_die(l, "The monitor could not wait for the agent.");
        }
}

int agent_link_new(sd_event *e, int fd, json_t *identity, const AgentLinkHandlers *handlers, void *userdata,
                   AgentLink **ret) {
        AgentLink *l;
        int r;

        r = fd_nonblock(fd, true);
        if (r < 0)
                return r;
        l = malloc(sizeof(AgentLink));
        if (!l)
                return -ENOMEM;
        *l = (AgentLink) { .event = e,
                           .handlers = handlers,
                           .userdata = userdata,
                           .fd = fd,
                           .identity = identity ? json_incref(identity) : NULL };

        r = event_io(e, &l->io_source, fd, EPOLLIN, PRIORITY_VMM, on_waiting, l, "agent-wait");
        if (r >= 0)
                r = event_timer(e, &l->timer, AGENT_BOOT_USEC, PRIORITY_VMM, on_wait_timeout, l,
                                "agent-timeout");
        if (r < 0) {
                l->fd = -EBADF;
                (void) agent_link_free(l);
                return r;
        }
        *ret = l;
        return 0;
}

AgentLink* agent_link_free(AgentLink *l) {
        if (!l)
                return NULL;

        l->state = LINK_DEAD;
        l->lost_told = true;
        l->io_source = event_source_free(l->io_source);
        l->timer = event_source_free(l->timer);
        l->refill_source = event_source_free(l->refill_source);
        link_end_session(l);
        own_clear(&l->put_identity);
        own_clear(&l->poweroff);
        if (l->identity)
                json_decref(l->identity);
        (void) close_fd(l->fd);
        free(l);
        return NULL;
}

bool agent_link_is_ready(const AgentLink *l) {
        return l && l->state == LINK_READY;
}
