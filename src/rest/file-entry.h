/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Entries of files as the agent tells them and clients get them (api.md §2.21). The agent is not believed:
 * an entry that comes out has the members that clients expect, of the right types and within their ranges,
 * and no others.
 */

#include <jansson.h>

#include "basic/fault.h"
#include "basic/limits.h"

/* text: n bytes of JSON, of one entry. *ret: a new object. -EBADMSG, -ENOMEM. */
int file_entry_parse(const char *text, size_t n, json_t **ret);

/* {"entries":[…]} out of lines, as they come in pieces. */
typedef struct FileList {
        char *line; /* one that has begun; owned */
        size_t n_line, n_line_allocated;
        char *text; /* to be passed on; owned */
        size_t n_text, n_text_allocated;
        uint64_t n_entries;
} FileList;

void file_list_done(FileList *l);
/* Appends to l->text. -EBADMSG: something else than entries; -E2BIG: more than FILE_ENTRIES_MAX, or the
 * agent says so; -ENOMEM. */
int file_list_feed(FileList *l, const char *data, size_t n);
/* All lines have come. -EBADMSG, -ENOMEM. */
int file_list_finish(FileList *l);
/* What was in l->text is passed on. */
void file_list_clear_text(FileList *l);
