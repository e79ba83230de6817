/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A strict reader of multipart/form-data (RFC 7578, RFC 2046 §5.1), step by step and without a copy of the
 * contents: bytes in, what they mean out. It knows no socket and no route. Input may be cut anywhere.
 *
 * Lines end in CR LF; a delimiter is a line's beginning, followed by blanks or "--" only; a part has exactly
 * one Content-Disposition: form-data with a name, and no transfer encoding. What stands before the first
 * delimiter and behind the last one is dropped, up to MULTIPART_HEADERS_MAX bytes each.
 */

#include "basic/fault.h"
#include "basic/limits.h"

#define MULTIPART_NAME_MAX 256U /* bytes of a field's name */

typedef enum MultipartEvent {
        MULTIPART_MORE, /* all input is used up */
        MULTIPART_PART, /* the head of a part is whole: m->name, m->has_filename */
        MULTIPART_DATA, /* contents of that part */
        MULTIPART_PART_END,
        MULTIPART_END, /* the last delimiter has come; only an epilogue may follow */
} MultipartEvent;

typedef enum MultipartState {
        MULTIPART_STATE_PREAMBLE,
        MULTIPART_STATE_DELIMITER, /* behind "--boundary": blanks and CR LF, or "--" */
        MULTIPART_STATE_DELIMITER_LF,
        MULTIPART_STATE_DELIMITER_DASH,
        MULTIPART_STATE_HEAD,
        MULTIPART_STATE_BODY,
        MULTIPART_STATE_EPILOGUE,
} MultipartState;

typedef struct Multipart {
        char delimiter[4 + MULTIPART_BOUNDARY_MAX + 1]; /* CR LF "--" boundary */
        size_t n_delimiter;
        MultipartState state;
        size_t n_matched; /* bytes of the delimiter seen at the end of the input so far */
        size_t n_held;    /* … of which so many turned out to be contents, at held */
        size_t held;
        size_t n_dropped; /* of preamble, padding, epilogue */
        unsigned n_parts;
        bool in_part;

        char *head; /* of the part, MULTIPART_HEADERS_MAX; owned */
        size_t n_head;
        char name[MULTIPART_NAME_MAX + 1];
        bool has_filename;
} Multipart;

/*
 * content_type: the request's header, NULL: none came. FAULT_INVALID_ARGS when it is not
 * multipart/form-data with a good boundary.
 */
int multipart_init(Multipart *m, const char *content_type, Fault *reterr);
void multipart_done(Multipart *m);

/*
 * Reads on in data[0…n). Returns how many bytes are done with; the caller comes again with the rest, until
 * MULTIPART_MORE. MULTIPART_DATA: *ret_data, *ret_n are at most max bytes of contents, in data or in m,
 * valid until the next call. < 0: the fault is set and the form is over.
 */
ssize_t multipart_next(Multipart *m, const char *data, size_t n, size_t max, MultipartEvent *ret_event,
                       const char **ret_data, size_t *ret_n, Fault *reterr);

/* The input is over: FAULT_INVALID_ARGS unless the last delimiter has come. */
int multipart_finish(const Multipart *m, Fault *reterr);
