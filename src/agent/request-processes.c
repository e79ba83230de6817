/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The requests of /processes. */

#include <signal.h>
#include <string.h>

#include "agent/request-internal.h"
#include "basic/limits.h"
#include "basic/strings.h"

void processes_get(Request *q) {
        answer_json_consume(q, 200, process_table_to_json(q->agent->processes));
}

static int resize_frame(Request *q, const uint8_t *payload, size_t n) {
        if (n != 4)
                return -EPROTO;

        /* Impossible sizes and processes without a terminal: nothing to do. */
        if (q->reader.process)
                (void) process_resize(q->reader.process, (uint32_t) payload[0] << 8 | payload[1],
                                      (uint32_t) payload[2] << 8 | payload[3]);
        return 0;
}

int process_attach_frame(FrameType type, const void *payload, size_t n, void *userdata) {
        Request *q = userdata;

        switch (type) {
        case FRAME_STDIN:
                q->n_kept += n - process_stdin(&q->reader, payload, n);
                return 0;
        case FRAME_STDIN_EOF:
                if (q->reader.process)
                        process_stdin_eof(q->reader.process);
                return 0;
        case FRAME_RESIZE:
                return resize_frame(q, payload, n);
        default:
                return -EPROTO;
        }
}

static int processes_post_spec(Request *q, const void *payload, size_t n) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(spec_done) Spec spec = {};
        int r;

        if (q->answered)
                return -EPROTO;

        r = spec_parse(payload, n, &spec, &fault);
        if (r >= 0)
                r = process_prepare(q->agent->processes, &spec, q->agent->identity.process_env,
                                    q->agent->identity.default_user, &q->reader, &fault);
        if (r < 0) {
                answer_fault(q, &fault);
                return 0;
        }

        q->answered = true;
        process_begin(&q->reader);
        return 0;
}

int processes_post_frame(FrameType type, const void *payload, size_t n, void *userdata) {
        Request *q = userdata;

        if (type == FRAME_SPEC)
                return processes_post_spec(q, payload, n);

        return q->answered ? process_attach_frame(type, payload, n, q) : -EPROTO;
}

void processes_post_end(Request *q) {
        if (!q->answered)
                answer_error(q, FAULT_INVALID_ARGS, "Expected a process.");
        else if (q->reader.process)
                process_stdin_eof(q->reader.process);
}

static Process* find_process(Request *q, bool ended) {
        _cleanup_free_ char *selector = NULL;
        const char *verb;
        Process *p;

        if (request_parse_selector(h2_stream_path(q->stream), &selector, &verb) < 0) {
                answer_error(q, FAULT_INVALID_ARGS, "Expected a pid or tag.");
                return NULL;
        }

        p = process_find(q->agent->processes, selector, ended);
        if (!p) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;

                (void) fault_set(&fault, FAULT_NOT_FOUND, "No process '%s'.", selector);
                answer_fault(q, &fault);
        }

        return p;
}

static void attach(Request *q, bool tail) {
        Process *p = find_process(q, /* ended= */ true);

        if (!p)
                return;
        q->answered = true;
        process_attach(p, &q->reader, tail);
}

void process_get(Request *q) {
        attach(q, /* tail= */ true);
}

void process_attach_post(Request *q) {
        uint32_t tail;

        if (request_parse_number(h2_stream_path(q->stream), "tail", 1, &tail) < 0 || tail > 1)
                answer_error(q, FAULT_INVALID_ARGS, "tail: expected 0 or 1.");
        else
                attach(q, tail > 0);
}

void process_resize_post(Request *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        const char *path = h2_stream_path(q->stream);
        uint32_t cols = 0, rows = 0;
        Process *p;
        int r;

        r = request_parse_number(path, "cols", 0, &cols);
        if (r >= 0)
                r = request_parse_number(path, "rows", 0, &rows);
        if (r < 0 || !pty_size_is_valid(cols, rows)) {
                (void) fault_set(&fault, FAULT_INVALID_ARGS, "cols, rows: expected 1 to %u, 1 to %u.",
                                 PTY_COLS_MAX, PTY_ROWS_MAX);
                answer_fault(q, &fault);
                return;
        }

        p = find_process(q, /* ended= */ false);
        if (!p)
                return;

        r = process_resize(p, cols, rows);
        if (r == -ENOTTY)
                answer_error(q, FAULT_INVALID_ARGS, "The process has no terminal.");
        else if (r < 0)
                answer_error(q, FAULT_NOT_FOUND, "The process has ended.");
        else
                answer_empty(q);
}

void process_signal(Request *q) {
        int sig = request_parse_signal(h2_stream_path(q->stream), SIGKILL);
        Process *p;

        if (sig < 0) {
                answer_error(q, FAULT_INVALID_ARGS, "signal: expected a number or name.");
                return;
        }

        p = find_process(q, /* ended= */ false);
        if (!p)
                return;
        if (process_kill(p, sig) < 0)
                answer_error(q, FAULT_NOT_FOUND, "The process has ended.");
        else
                answer_empty(q);
}
