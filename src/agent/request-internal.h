/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Shared by request.c (streams, routes, answers) and the handlers of the resources, request-*.c. */

#include <jansson.h>

#include "agent/agent.h"
#include "agent/request.h"
#include "basic/fault.h"
#include "shared/protocol.h"

typedef struct Route Route;

typedef struct Request {
        Agent *agent;
        H2Stream *stream;
        const Route *route;
        bool answered; /* with a head; what the peer still sends is dropped */
        char *body;    /* of JSON requests; owned */
        size_t n_body;
        FrameDecoder decoder; /* of routes with on_frame */
        size_t n_kept;        /* bytes of the current on_data that stdin did not take */
        ProcessReader reader;
        void *state; /* of the route's own; on_gone frees it */
} Request;

struct Route {
        const char *method, *path;    /* path ending in '/': prefix of a selector */
        const char *verb;             /* behind the selector */
        void (*on_begin)(Request *q); /* the head has come */
        void (*on_body)(Request *q);  /* the whole body has come */
        int (*on_frame)(FrameType type, const void *payload, size_t n, void *userdata);
        /* A piece of the body, also after the answer: the number of bytes done with, the rest is the
         * route's to give to h2_stream_consume(). */
        size_t (*on_bytes)(Request *q, const void *data, size_t n);
        void (*on_gone)(Request *q); /* the stream is gone */
};

/* request.c: the one answer of a request; the second and later ones are dropped. */
void answer_json_consume(Request *q, unsigned status, json_t *object); /* takes object in every case */
void answer_fault(Request *q, const Fault *fault);
void answer_error(Request *q, FaultCode code, const char *message);
void answer_empty(Request *q);

/* request-processes.c */
void processes_get(Request *q);
int processes_post_frame(FrameType type, const void *payload, size_t n, void *userdata);
void processes_post_end(Request *q);
void process_get(Request *q);
void process_attach_post(Request *q);
int process_attach_frame(FrameType type, const void *payload, size_t n, void *userdata);
void process_signal(Request *q);
void process_resize_post(Request *q);

/* request-files.c */
void files_get(Request *q);
void files_get_gone(Request *q);
void files_put(Request *q);
size_t files_put_bytes(Request *q, const void *data, size_t n);
void files_put_end(Request *q);
void files_put_gone(Request *q);
void files_stat(Request *q);
void files_mkdir(Request *q);
void files_rename(Request *q);
void files_list(Request *q);
void files_remove(Request *q);
void files_tar_get(Request *q);
void files_tar_put(Request *q);
size_t files_tar_bytes(Request *q, const void *data, size_t n);
void files_tar_end(Request *q);
void files_job_gone(Request *q);
