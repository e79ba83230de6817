/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A process in the guest over a call of its own: the typed frames of /processes (docs/PROTOCOLS.md §3) on an
 * AgentCall. */

#include "rest/channel.h"
#include "shared/protocol.h"

typedef struct ProcessCall ProcessCall;

typedef struct ProcessStarted {
        uint32_t pid;
        const char *tag; /* borrowed */
        bool pty;        /* it has a terminal */
} ProcessStarted;

typedef struct ProcessExit {
        int exit_code; /* 0…255, or -1: killed by a signal */
        bool timed_out;
} ProcessExit;

/* A callback may free the call; on_exit and on_failed are the last ones. */
typedef struct ProcessHandlers {
        void (*on_started)(ProcessCall *p, const ProcessStarted *started, void *userdata);
        /* FRAME_STDOUT, FRAME_STDERR or FRAME_PTY, piecewise. false: it counts against the window until
         * process_call_consume(), and the process stops when the window is full. */
        bool (*on_output)(ProcessCall *p, FrameType type, const void *data, size_t n, void *userdata);
        void (*on_exit)(ProcessCall *p, const ProcessExit *e, void *userdata); /* all output came before */
        void (*on_writable)(ProcessCall *p, void *userdata); /* optional; process_call_input() takes more */
        void (*on_failed)(ProcessCall *p, const Fault *fault, void *userdata);
} ProcessHandlers;

/*
 * POST /processes with this specification. with_input: process_call_input() and _resize() may follow. The
 * start contract; every call ends with on_exit or on_failed. -ENOBUFS at EXEC_PENDING_MAX.
 */
int channel_start_process(ChannelTable *t, const CapsuleView *capsule, const AuthKey *key, const char *spec,
                          bool with_input, const ProcessHandlers *handlers, void *userdata,
                          ProcessCall **ret);
/* The same for a process that exists, by pid or tag: the tail kept, then what follows. */
int channel_attach_process(ChannelTable *t, const CapsuleView *capsule, const AuthKey *key,
                           const char *selector, bool with_input, const ProcessHandlers *handlers,
                           void *userdata, ProcessCall **ret);
/* "/processes/<selector, percent-encoded><rest>"; NULL on out of memory. */
char* process_path(const char *selector, const char *rest);

/* FRAME_STDIN: the number of bytes taken (less than n, also 0: wait for on_writable), or -errno. */
ssize_t process_call_input(ProcessCall *p, const void *data, size_t n);
/* FRAME_RESIZE: 0, -EAGAIN (wait for on_writable), or another -errno. */
int process_call_resize(ProcessCall *p, unsigned cols, unsigned rows);
void process_call_consume(ProcessCall *p, size_t n);
/* Before the exit: resets the stream, and a process with on_disconnect=kill dies. */
ProcessCall* process_call_free(ProcessCall *p);
/* The same, but what was typed just before gets a moment to reach the process: a reset overtakes it. */
ProcessCall* process_call_linger(ProcessCall *p, sd_event *e);
DEFINE_CLEANUP(ProcessCall, process_call_free)
