/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * However it ends, it is settled once (transfer_settle) and told from the loop (on_done), after what the
 * agent sent in good order was taken.
 */

#include <fcntl.h>
#include <fnmatch.h>
#include <string.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/strings.h"
#include "monitor/agent-error.h"
#include "monitor/fd-flow.h"
#include "monitor/transfer.h"
#include "shared/event.h"

#define HEAD_USEC      (60 * USEC_PER_SEC) /* for an answer's head, where no other time was given */
#define TELL_IDLE_USEC (2 * USEC_PER_SEC)  /* between two looks at one that stands still */

struct Transfer {
        AgentRequest rq;
        sd_event *event; /* weak: outlives us */
        const TransferHandlers *handlers;
        void *userdata;
        char *method, *path;
        bool with_body;
        bool whole_timed; /* 'timeout' is for all of it, not for the head alone */
        uint64_t answer_max, n_answer;
        FdFeed feed;
        FdSink sink;
        int report_fd; /* a duplicate of the body's; -EBADF: nobody wants to know */
        AgentError error;
        sd_event_source *tell_timer, *timeout, *done_source;
        uint64_t tell_usec, n_told;
        bool started, settled;
        int result;
        Fault fault;
};

/* Spec */

void transfer_spec_done(TransferSpec *s) {
        free(s->method);
        free(s->path);
        *s = (TransferSpec) {};
}

static bool request_is_allowed(const char *method, const char *path) {
        static const struct {
                const char *method, *pattern;
        } allowed[] = {
                { "GET", "/processes" },
                { "POST", "/processes/*/signal" },
                { "POST", "/processes/*/resize" },
                { "GET", "/files" },
                { "PUT", "/files" },
                { "GET", "/files/stat" },
                { "GET", "/files/list" },
                { "POST", "/files/mkdir" },
                { "POST", "/files/remove" },
                { "POST", "/files/rename" },
                { "GET", "/files/tar" },
                { "PUT", "/files/tar" },
        };
        _cleanup_free_ char *resource = strndup(path, strcspn(path, "?"));

        for (const char *p = path; *p; p++)
                if (*p <= ' ' || *p > '~' || *p == '#')
                        return false;
        for (size_t i = 0; resource && i < ELEMENTSOF(allowed); i++)
                if (streq(allowed[i].method, method) &&
                    fnmatch(allowed[i].pattern, resource, FNM_PATHNAME | FNM_PERIOD) == 0)
                        return true;
        return false;
}

int transfer_spec_parse(json_t *message, TransferSpec *ret, Fault *reterr) {
        static const JsonField fields[] = {
                { "method", json_parse_string, offsetof(TransferSpec, method), JSON_FIELD_MANDATORY,
                  .max = 8 },
                { "path", json_parse_string, offsetof(TransferSpec, path), JSON_FIELD_MANDATORY,
                  .max = REQUEST_PATH_MAX },
                { "body", json_parse_bool, offsetof(TransferSpec, body) },
                { "answer", json_parse_bool, offsetof(TransferSpec, answer) },
                { "report", json_parse_bool, offsetof(TransferSpec, report) },
                { "shared", json_parse_bool, offsetof(TransferSpec, shared) },
                { "bound", json_parse_bool, offsetof(TransferSpec, bound) },
                { "answer_max", json_parse_u64, offsetof(TransferSpec, answer_max) },
                { "timeout_usec", json_parse_u64, offsetof(TransferSpec, timeout_usec) },
                {},
        };
        TransferSpec s = {};
        int r;

        r = json_dispatch(message, fields, &s, reterr);
        if (r >= 0 && !request_is_allowed(s.method, s.path))
                r = fault_set(reterr, FAULT_ACCESS_DENIED, "path: there is no such request for callers.");
        if (r < 0) {
                transfer_spec_done(&s);
                return r;
        }
        *ret = s;
        return 0;
}

/* The end */

static uint64_t n_bytes(const Transfer *t) {
        return t->with_body ? t->feed.n_bytes : t->sink.n_bytes;
}

static bool answer_is_good(const Transfer *t) {
        unsigned status = t->rq.stream ? h2_stream_status(t->rq.stream) : 0;

        return status >= 200 && status < 300;
}

/* A socket that is closed with something unread in it resets its peer, who would not see the text. */
static void report(Transfer *t) {
        uint8_t buffer[4096];

        if (t->report_fd < 0)
                return;
        if (t->result < 0) {
                (void) shutdown(t->report_fd, SHUT_RD);
                while (recv(t->report_fd, buffer, sizeof(buffer), MSG_DONTWAIT) > 0)
                        ;
                (void) send(t->report_fd, t->fault.message, strlen(t->fault.message),
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        t->report_fd = close_fd(t->report_fd);
}

static int on_done(sd_event_source *source, void *userdata) {
        Transfer *t = userdata;

        if (!t->settled || fd_sink_pending(&t->sink) > 0)
                return 0;
        fd_feed_close(&t->feed);
        fd_sink_close(&t->sink);
        report(t);
        t->tell_timer = event_source_free(t->tell_timer);
        t->timeout = event_source_free(t->timeout);
        if (t->started)
                t->handlers->on_ended(t, n_bytes(t), t->result, t->result < 0 ? &t->fault : NULL,
                                      t->userdata);
        else
                t->handlers->on_started(t, t->result, &t->fault, t->userdata);
        return 0;
}

static void done_later(Transfer *t) {
        if (t->settled)
                (void) event_defer(t->event, &t->done_source, PRIORITY_CLIENT, on_done, t);
}

/* r < 0: with the fault set, if there was memory for it. Nothing is asked of the agent any more. */
static void transfer_settle(Transfer *t, int r) {
        bool half_done = r < 0 || t->feed.fd >= 0;

        if (t->settled)
                return;
        t->settled = true;
        t->result = r;
        if (r < 0 && !fault_is_set(&t->fault))
                (void) fault_set_errno(&t->fault, r, "The transfer failed");
        fd_feed_close(&t->feed);
        if (half_done)
                agent_request_cancel(&t->rq, H2_CANCEL);
        if (r < 0)
                fd_sink_close(&t->sink);
        done_later(t);
}

/* The caller's side failed, perhaps when all had come but not all was taken. */
static void transfer_fail(Transfer *t, int r) {
        if (t->settled && t->result >= 0) {
                t->result = r;
                fd_sink_close(&t->sink);
                done_later(t);
        } else
                transfer_settle(t, r);
}

void transfer_cancel(Transfer *t, const char *text) {
        if (!t->settled || fd_sink_pending(&t->sink) > 0)
                transfer_fail(t, fault_set(&t->fault, FAULT_CANCELED, "%s", text));
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
        Transfer *t = userdata;

        if (!t->settled)
                transfer_settle(t, fault_set(&t->fault, FAULT_TIMEOUT,
                                             "The agent did not answer the request in time."));
        return 0;
}

static int on_tell(sd_event_source *source, uint64_t usec, void *userdata) {
        Transfer *t = userdata;
        uint64_t n = n_bytes(t);

        t->tell_usec = n == t->n_told ? MIN(t->tell_usec * 2, TELL_IDLE_USEC) : TRANSFER_TELL_USEC;
        (void) event_timer(t->event, &t->tell_timer, t->tell_usec, PRIORITY_STATS, on_tell, t,
                           "transfer-tell");
        if (n != t->n_told && t->started)
                t->handlers->on_bytes(t, n, t->userdata);
        t->n_told = n;
        return 0;
}

/* The fds */

static void on_sink(FdSink *s, int r, void *userdata) {
        Transfer *t = userdata;

        if (r == -EPIPE)
                transfer_fail(t, fault_set(&t->fault, FAULT_CANCELED, "Nobody reads the answer any more."));
        else if (r < 0)
                transfer_fail(t, fault_set_errno(&t->fault, r, "Failed to write the answer"));
        else if (fd_sink_pending(s) == 0)
                done_later(t);
}

static void on_feed_end(FdFeed *f, int r, void *userdata) {
        Transfer *t = userdata;

        if (r < 0)
                transfer_settle(t, fault_set_errno(&t->fault, r, "Failed to read the body"));
        else if (t->rq.stream)
                (void) h2_stream_end(t->rq.stream);
}

/* The stream */

static Transfer* TRANSFER(AgentRequest *rq) {
        return container_of(rq, Transfer, rq);
}

static int transfer_open(AgentRequest *rq, H2Session *s) {
        Transfer *t = TRANSFER(rq);
        int r;

        r = h2_session_request(s, t->method, t->path, NULL, 0, /* end= */ !t->with_body, rq, &rq->stream);
        if (r >= 0)
                fd_feed_wake(&t->feed);
        return r;
}

static void transfer_on_headers(AgentRequest *rq) {
        Transfer *t = TRANSFER(rq);

        if (t->started || !answer_is_good(t))
                return;
        t->started = true;
        if (!t->whole_timed)
                t->timeout = event_source_free(t->timeout);
        t->handlers->on_started(t, 0, NULL, t->userdata);
}

static void transfer_on_data(AgentRequest *rq, const void *data, size_t n) {
        Transfer *t = TRANSFER(rq);
        int r = 0;

        if (!answer_is_good(t)) {
                h2_stream_consume(rq->stream, n);
                r = agent_error_take(&t->error, data, n);
        } else if (t->answer_max > 0 && n > t->answer_max - t->n_answer) {
                h2_stream_consume(rq->stream, n);
                r = fault_set(&t->fault, FAULT_TOO_LARGE, "The answer has more than %llu bytes.",
                              (unsigned long long) t->answer_max);
        } else {
                t->n_answer += n;
                r = fd_sink_take(&t->sink, data, n);
        }
        if (r < 0)
                transfer_settle(t, r);
}

static void transfer_on_end(AgentRequest *rq) {
        Transfer *t = TRANSFER(rq);
        int r = 0;

        if (!answer_is_good(t))
                r = agent_error_fault(&t->error, "The agent refused the request.", &t->fault);
        transfer_settle(t, r);
}

static void transfer_on_writable(AgentRequest *rq) {
        fd_feed_wake(&TRANSFER(rq)->feed);
}

static void transfer_on_close(AgentRequest *rq, uint32_t error) {
        Transfer *t = TRANSFER(rq);

        if (!t->settled)
                transfer_settle(t, fault_set(&t->fault, FAULT_AGENT,
                                             t->started ? "The agent broke the transfer off."
                                                        : "The agent did not answer."));
}

static const AgentRequestOps transfer_ops = {
        .open = transfer_open,
        .on_headers = transfer_on_headers,
        .on_data = transfer_on_data,
        .on_end = transfer_on_end,
        .on_writable = transfer_on_writable,
        .on_close = transfer_on_close,
};

/* Life */

/* Takes the fds it opens. */
static int open_fds(Transfer *t, const TransferSpec *spec, int *fds) {
        size_t i = 0;
        int r;

        if (spec->report) {
                t->report_fd = fcntl(fds[0], F_DUPFD_CLOEXEC, 3);
                if (t->report_fd < 0)
                        return -errno;
        }
        if (spec->body) {
                r = fd_feed_open(&t->feed, t->event, fds[i], spec->shared, /* framed= */ false, &t->rq,
                                 on_feed_end, t);
                if (r < 0)
                        return r;
                (void) TAKE_FD(fds[i]);
                i++;
        }
        if (spec->answer) {
                r = fd_sink_open(&t->sink, t->event, fds[i], spec->shared, &t->rq, on_sink, t);
                if (r < 0)
                        return r;
                (void) TAKE_FD(fds[i]);
        }
        return 0;
}

static int transfer_new(sd_event *e, const TransferSpec *spec, const TransferHandlers *handlers,
                        void *userdata, Transfer **ret) {
        _cleanup_(transfer_freep) Transfer *t = malloc(sizeof(Transfer));
        int r;

        if (!t)
                return -ENOMEM;
        *t = (Transfer) {
                .rq.ops = &transfer_ops,
                .event = e,
                .handlers = handlers,
                .userdata = userdata,
                .method = strdup(spec->method),
                .path = strdup(spec->path),
                .with_body = spec->body,
                .whole_timed = spec->timeout_usec > 0,
                .started = spec->body,
                .answer_max = spec->answer_max,
                .feed = FD_FEED_NULL,
                .sink = FD_SINK_NULL,
                .report_fd = -EBADF,
                .tell_usec = TRANSFER_TELL_USEC,
        };
        t->sink.rq = &t->rq; /* drops what nobody asked for */
        if (!t->method || !t->path)
                return -ENOMEM;
        r = event_timer(e, &t->tell_timer, t->tell_usec, PRIORITY_STATS, on_tell, t, "transfer-tell");
        if (r >= 0 && (spec->timeout_usec > 0 || !spec->body))
                r = event_timer(e, &t->timeout, spec->timeout_usec ?: HEAD_USEC, PRIORITY_CLIENT, on_timeout,
                                t, "transfer-timeout");
        if (r < 0)
                return r;
        *ret = TAKE_PTR(t);
        return 0;
}

int transfer_start(sd_event *e, AgentLink *agent, const TransferSpec *spec, int *fds, size_t n_fds,
                   const TransferHandlers *handlers, void *userdata, Transfer **ret, Fault *reterr) {
        _cleanup_(transfer_freep) Transfer *t = NULL;
        int r;

        if (n_fds != (size_t) spec->body + spec->answer || (spec->report && !spec->body))
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "The file descriptors are not those of body and answer.");
        r = transfer_new(e, spec, handlers, userdata, &t);
        if (r >= 0)
                r = open_fds(t, spec, fds);
        if (r == -EINVAL)
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "Expected a file, a pipe or a stream socket to read from or write to.");
        if (r >= 0)
                r = agent_link_submit(agent, &t->rq);
        if (r == -ENOTCONN)
                return fault_set(reterr, FAULT_INVALID_STATE, "The capsule's agent is not ready."), r;
        if (r == -E2BIG)
                return fault_set(reterr, FAULT_TOO_LARGE, "The path is too long.");
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to ask the agent");
        *ret = TAKE_PTR(t);
        return 0;
}

Transfer* transfer_free(Transfer *t) {
        if (!t)
                return NULL;
        t->done_source = event_source_free(t->done_source);
        t->tell_timer = event_source_free(t->tell_timer);
        t->timeout = event_source_free(t->timeout);
        agent_request_cancel(&t->rq, H2_CANCEL);
        fd_feed_close(&t->feed);
        fd_sink_close(&t->sink);
        (void) close_fd(t->report_fd);
        agent_error_done(&t->error);
        fault_done(&t->fault);
        free(t->method);
        free(t->path);
        free(t);
        return NULL;
}
