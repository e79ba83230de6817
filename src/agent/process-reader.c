/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The readers of a process: what each stream is given, which of them holds up the others. */

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "agent/process-internal.h"
#include "basic/limits.h"

#define JSON_FRAME_MAX (2 * KIB) /* FRAME_STARTED, FRAME_EXIT with their headers */

/* Whoever calls has asked h2_stream_room(): all or nothing. */
static void reader_write(ProcessReader *reader, const void *data, size_t n) {
        if (h2_stream_write(reader->stream, data, n) < (ssize_t) n)
                (void) h2_stream_reset(reader->stream, H2_INTERNAL_ERROR);
}

/* Takes object in every case. False: no room in the stream now. */
static bool reader_write_json_consume(ProcessReader *reader, FrameType type, json_t *object) {
        char text[JSON_FRAME_MAX];
        size_t n;

        n = object ? json_dumpb(object, text + FRAME_HEADER_LEN, sizeof(text) - FRAME_HEADER_LEN,
                                JSON_COMPACT)
                   : 0;
        json_decref(object);
        if (n == 0 || n > sizeof(text) - FRAME_HEADER_LEN) {
                (void) h2_stream_reset(reader->stream, H2_INTERNAL_ERROR);
                return true;
        }

        if (h2_stream_room(reader->stream) < n + FRAME_HEADER_LEN)
                return false;

        frame_header((uint8_t *) text, type, (uint32_t) n);
        reader_write(reader, text, n + FRAME_HEADER_LEN);
        return true;
}

/* begin and end */

/* The answer's head and FRAME_STARTED. */
static void reader_write_started(ProcessReader *reader) {
        static const H2Header headers[] = { { "content-type", "application/octet-stream" } };
        const Process *p = reader->process;

        if (h2_stream_respond(reader->stream, 200, headers, ELEMENTSOF(headers), /* end= */ false) < 0)
                (void) h2_stream_reset(reader->stream, H2_INTERNAL_ERROR);
        (void) reader_write_json_consume(reader, FRAME_STARTED,
                                         json_pack("{s:i, s:s, s:b}", "pid", (int) p->pid, "tag",
                                                   p->spec.tag, "pty", p->spec.pty.wanted));
}

/* Nothing of it has been sent, and now will not be, or has been written to the stream. */
static void reader_end_hold(ProcessReader *reader) {
        reader->holding = false;
        loop_timer_stop(&reader->hold_timer);
        free(reader->held);
        reader->held = NULL;
        reader->n_held = 0;
}

static void reader_release(ProcessReader *reader) {
        if (!reader->holding)
                return;

        reader_write_started(reader);
        if (reader->n_held > 0)
                reader_write(reader, reader->held, reader->n_held);
        reader_end_hold(reader);
}

static void on_hold_over(void *userdata) {
        reader_release(userdata);
}

void reader_begin(ProcessReader *reader, bool hold) {
        reader->holding = hold;
        if (hold)
                loop_timer_start(reader->process->table->loop, &reader->hold_timer, PROCESS_HOLD_USEC,
                                 on_hold_over, reader);
        else
                reader_write_started(reader);
}

bool reader_write_exit(ProcessReader *reader) {
        const Process *p = reader->process;
        bool signaled = WIFSIGNALED(p->status);
        const char *reason = p->timed_out ? "timeout" : signaled ? "signaled" : "exited";

        reader_release(reader);
        if (!reader_write_json_consume(reader, FRAME_EXIT,
                                       json_pack("{s:i, s:i, s:s, s:I}", "exit_code",
                                                 signaled ? -1 : WEXITSTATUS(p->status), "signal",
                                                 signaled ? WTERMSIG(p->status) : 0, "reason", reason,
                                                 "duration_usec", (json_int_t) p->duration_usec)))
                return false;

        (void) h2_stream_end(reader->stream);
        return true;
}

/* the list */

void reader_link(Process *p, ProcessReader *reader) {
        reader->process = p;
        reader->next = p->readers;
        p->readers = reader;
}

static void reader_take_out(ProcessReader *reader) {
        ProcessReader **link = &reader->process->readers;

        while (*link != reader)
                link = &(*link)->next;
        *link = reader->next;
}

void reader_unlink(ProcessReader *reader) {
        reader_end_hold(reader);
        reader_take_out(reader);
        reader->process = NULL;
}

void reader_requeue(ProcessReader *reader) {
        ProcessReader **link = &reader->process->readers;

        reader_take_out(reader);
        while (*link)
                link = &(*link)->next;
        reader->next = NULL;
        *link = reader;
}

/* output */

size_t readers_room(const Process *p) {
        size_t room = PROCESS_READ_MAX;

        for (ProcessReader *reader = p->readers; reader; reader = reader->next) {
                size_t have = h2_stream_room(reader->stream);

                room = MIN(room, have > FRAME_HEADER_LEN ? have - FRAME_HEADER_LEN : 0);
        }

        return room;
}

/* False: it does not fit. */
static bool reader_hold(ProcessReader *reader, const uint8_t *header, const void *data, size_t n) {
        if (!reader->holding || FRAME_HEADER_LEN + n > PROCESS_HOLD_BYTES - reader->n_held)
                return false;
        if (!reader->held)
                reader->held = malloc(PROCESS_HOLD_BYTES);
        if (!reader->held)
                return false;

        memcpy(reader->held + reader->n_held, header, FRAME_HEADER_LEN);
        memcpy(reader->held + reader->n_held + FRAME_HEADER_LEN, data, n);
        reader->n_held += FRAME_HEADER_LEN + n;
        return true;
}

void readers_write(Process *p, FrameType type, const void *data, size_t n) {
        uint8_t header[FRAME_HEADER_LEN];

        frame_header(header, type, (uint32_t) n);
        for (ProcessReader *reader = p->readers; reader; reader = reader->next) {
                if (reader_hold(reader, header, data, n))
                        continue;
                reader_release(reader);
                reader_write(reader, header, sizeof(header));
                reader_write(reader, data, n);
        }
}

void reader_write_tail(ProcessReader *reader) {
        const void *data[2];
        size_t n[2], n_pieces;

        n_pieces = ring_read(&reader->process->ring, data, n);
        for (size_t i = 0; i < n_pieces; i++)
                reader_write(reader, data[i], n[i]);
}

/* who holds up the others */

/* It has yet to become writable again. */
static bool reader_is_behind(const ProcessReader *reader) {
        return h2_stream_room(reader->stream) < H2_QUEUE_BYTES_MAX / 2;
}

/* Drops who took nothing since the last look, if that helps anybody. */
static void on_stall(void *userdata) {
        Process *p = userdata;
        bool helps = false;

        for (ProcessReader *reader = p->readers; reader; reader = reader->next)
                helps = helps || !reader_is_behind(reader);

        for (ProcessReader *reader = p->readers; helps && reader; reader = reader->next)
                if (reader_is_behind(reader) && h2_stream_room(reader->stream) <= reader->stall_room)
                        (void) h2_stream_reset(reader->stream, H2_ENHANCE_YOUR_CALM);

        readers_watch_stall(p);
}

void readers_watch_stall(Process *p) {
        if (!process_is_paused(p) || !p->readers || !p->readers->next) {
                loop_timer_stop(&p->stall_timer);
                return;
        }

        if (p->stall_timer.loop)
                return;

        for (ProcessReader *reader = p->readers; reader; reader = reader->next)
                reader->stall_room = h2_stream_room(reader->stream);
        loop_timer_start(p->table->loop, &p->stall_timer, READER_STALL_USEC, on_stall, p);
}
