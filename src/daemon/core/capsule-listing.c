/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Answers that are lists: they come into a memfd, whose pages the capsule pays for, and are read from there
 * a piece at a time, so that no list keeps the others waiting. Its writer is as hostile as the guest, and
 * may still be writing.
 */

#include <string.h>
#include <sys/mman.h>

#include "basic/fd.h"
#include "basic/limit-table.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "daemon/core/capsule-files.h"
#include "daemon/core/capsule-request.h"
#include "daemon/core/manager.h"
#include "shared/event.h"
#include "shared/json-field.h"

#define ENTRIES_PER_TURN 256U

typedef struct Listing Listing;

/* What one line is; sets the fault. */
typedef int (*LineFunc)(Listing *l, json_t *line);

struct Listing {
        Capsule *capsule; /* pinned */
        CapsuleTransfer *transfer;
        sd_event_source *source;
        int fd;
        size_t line_max; /* bytes of the longest line */
        unsigned n_entries, entries_max;
        char *buffer; /* line_max bytes: what was read and not parsed */
        size_t n_buffer;
        off_t offset;
        bool eof;
        LineFunc on_line;
        FileEntryFunc each_file;
        ProcessEntryFunc each_process;
        CapsuleDone done;
        void *userdata;
        Fault fault;
};

static Listing* listing_free(Listing *l) {
        if (!l)
                return NULL;
        if (l->capsule)
                l->capsule->manager->n_listings--;
        l->source = event_source_free(l->source);
        l->transfer = capsule_transfer_free(l->transfer);
        (void) close_fd(l->fd);
        fault_done(&l->fault);
        free(l->buffer);
        (void) capsule_unref(l->capsule);
        free(l);
        return NULL;
}
DEFINE_CLEANUP(Listing, listing_free)

static int odd_answer(Listing *l, const Fault *why) {
        return fault_set(&l->fault, FAULT_AGENT, "The agent's answer is not valid%s%s",
                         why && fault_is_set(why) ? ": " : ".", why ? strempty(why->message) : "");
}

/* --- entries --------------------------------------------------------------------------------- */

static bool type_is_valid(const char *s) {
        return streq(s, "file") || streq(s, "directory") || streq(s, "symlink");
}

static void file_entry_done(FileEntry *e) {
        char *const fields[] = { e->name,        e->path,  e->type,  e->path_base64,
                                 e->permissions, e->owner, e->group, e->symlink_target };

        for (size_t i = 0; i < ELEMENTSOF(fields); i++)
                free(fields[i]);
}

/* A list that the agent broke off says so in its last line. */
static int take_error(Listing *l, json_t *error) {
        const char *message = strempty(json_string_value(json_object_get(error, "message")));
        FaultCode code = fault_from_wire_name(json_string_value(json_object_get(error, "code")));
        _cleanup_free_ char *shown = escape_for_display(message, MIN(strlen(message),
                                                                     (size_t) FAULT_MESSAGE_MAX / 4));

        return fault_set(&l->fault, code, "%s", strempty(shown));
}

static int on_file_line(Listing *l, json_t *line) {
        /* a byte that is no UTF-8 has become three */
        static const JsonField fields[] = {
                { "name", json_parse_string, offsetof(FileEntry, name), JSON_FIELD_MANDATORY,
                  .max = 3 * FILE_PATH_LEN_MAX, .valid = file_name_is_valid, .expected = "a file's name" },
                { "path", json_parse_string, offsetof(FileEntry, path), JSON_FIELD_MANDATORY,
                  .max = 3 * FILE_PATH_LEN_MAX },
                { "path_base64", json_parse_string, offsetof(FileEntry, path_base64),
                  .max = 2 * FILE_PATH_LEN_MAX },
                { "type", json_parse_string, offsetof(FileEntry, type), JSON_FIELD_MANDATORY,
                  .valid = type_is_valid, .expected = "a type of file" },
                { "size", json_parse_u64, offsetof(FileEntry, size) },
                { "mode", json_parse_u32, offsetof(FileEntry, mode), .max = 07777 },
                { "permissions", json_parse_string, offsetof(FileEntry, permissions), .max = NAME_MAX_LEN },
                { "owner", json_parse_string, offsetof(FileEntry, owner), .max = 3 * NAME_MAX_LEN },
                { "group", json_parse_string, offsetof(FileEntry, group), .max = 3 * NAME_MAX_LEN },
                { "modified_at", json_parse_u64, offsetof(FileEntry, modified_sec) },
                { "symlink_target", json_parse_string, offsetof(FileEntry, symlink_target),
                  .max = 3 * FILE_PATH_LEN_MAX },
                {},
        };
        _cleanup_(file_entry_done) FileEntry e = {};
        _cleanup_(fault_done) Fault odd = FAULT_NULL;
        int r;

        if (json_is_object(json_object_get(line, "error")))
                return take_error(l, json_object_get(line, "error"));
        r = json_dispatch(line, fields, &e, &odd);
        if (r < 0)
                return odd_answer(l, &odd);
        if (++l->n_entries > l->entries_max)
                return fault_set(&l->fault, FAULT_TOO_LARGE, "There are more than %u entries.",
                                 l->entries_max);
        r = l->each_file(&e, l->userdata);
        return r < 0 ? fault_set_errno(&l->fault, r, "Failed to pass the list on") : 0;
}

static void process_entry_done(ProcessEntry *e) {
        free(e->tag);
        free(e->command);
        strv_free(e->args);
}

static int on_process(Listing *l, json_t *object) {
        static const JsonField fields[] = {
                { "pid", json_parse_u32, offsetof(ProcessEntry, pid), JSON_FIELD_MANDATORY, .min = 1 },
                { "tag", json_parse_string, offsetof(ProcessEntry, tag), .max = TAG_MAX_LEN },
                { "cmd", json_parse_string, offsetof(ProcessEntry, command), .max = ARGV_ENV_BYTES_MAX },
                { "args", json_parse_strv, offsetof(ProcessEntry, args), .max = ARGV_MAX },
                { "pty", json_parse_bool, offsetof(ProcessEntry, pty) },
                {},
        };
        _cleanup_(process_entry_done) ProcessEntry e = {};
        _cleanup_(fault_done) Fault odd = FAULT_NULL;
        int r;

        if (!json_is_object(object) || json_dispatch(object, fields, &e, &odd) < 0)
                return odd_answer(l, &odd);
        r = l->each_process(&e, l->userdata);
        return r < 0 ? fault_set_errno(&l->fault, r, "Failed to pass the list on") : 0;
}

/* All of them in one object. */
static int on_processes_line(Listing *l, json_t *line) {
        json_t *list = json_object_get(line, "processes"), *item;
        size_t i;
        int r;

        if (!json_is_array(list) || json_array_size(list) > PROCESSES_MAX)
                return odd_answer(l, NULL);
        json_array_foreach(list, i, item) {
                r = on_process(l, item);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* --- lines out of the memfd ------------------------------------------------------------------ */

static int parse_line(Listing *l, const char *line, size_t n) {
        _cleanup_json_ json_t *object = NULL;
        _cleanup_(fault_done) Fault odd = FAULT_NULL;

        if (n == 0)
                return 0;
        if (json_parse_text(line, n, &object, &odd) < 0)
                return odd_answer(l, &odd);
        return l->on_line(l, object);
}

/* Fills the buffer when it holds no whole line. */
static int listing_read(Listing *l) {
        ssize_t n;

        if (l->eof || memchr(l->buffer, '\n', l->n_buffer))
                return 0;
        if (l->n_buffer == l->line_max)
                return odd_answer(l, NULL);
        n = pread(l->fd, l->buffer + l->n_buffer, l->line_max - l->n_buffer, l->offset);
        if (n < 0)
                return fault_set_errno(&l->fault, errno, "Failed to read the agent's answer");
        l->eof = n == 0;
        l->n_buffer += (size_t) n;
        l->offset += n;
        return 0;
}

/* Up to ENTRIES_PER_TURN lines. 1: there is more. */
static int listing_step(Listing *l) {
        char *at = l->buffer, *end;
        int r;

        r = listing_read(l);
        for (unsigned i = 0; r >= 0 && i < ENTRIES_PER_TURN; i++) {
                size_t left = l->n_buffer - (size_t) (at - l->buffer);

                end = memchr(at, '\n', left);
                if (!end && (!l->eof || left == 0))
                        break;
                r = parse_line(l, at, end ? (size_t) (end - at) : left);
                at = end ? end + 1 : at + left;
        }
        if (r < 0)
                return r;
        l->n_buffer -= (size_t) (at - l->buffer);
        memmove(l->buffer, at, l->n_buffer);
        return !l->eof || l->n_buffer > 0;
}

static void listing_end(Listing *l, int r) {
        l->done(l->capsule, r, r < 0 ? &l->fault : NULL, l->userdata);
        (void) listing_free(l);
}

static int on_turn(sd_event_source *source, void *userdata) {
        Listing *l = userdata;
        int r;

        r = listing_step(l);
        if (r > 0)
                r = sd_event_source_set_enabled(l->source, SD_EVENT_ONESHOT) < 0 ? -EIO : 1;
        if (r <= 0)
                listing_end(l, r);
        return 0;
}

static void on_answered(CapsuleTransfer *t, uint64_t bytes, int r, const Fault *fault, void *userdata) {
        Listing *l = userdata;

        if (r < 0)
                (void) fault_set(&l->fault, fault->code, "%s", fault->message);
        l->transfer = capsule_transfer_free(t);
        if (r >= 0) {
                r = event_defer(l->capsule->manager->event, &l->source, PRIORITY_CLIENT, on_turn, l);
                if (r >= 0)
                        return;
                (void) fault_set_errno(&l->fault, r, "Failed to read the agent's answer");
        }
        listing_end(l, r);
}

static const TransferHandlers transfer_handlers = { .on_ended = on_answered };

/* path NULL: making it failed, with reterr. prototype: what the kinds of lists differ in. */
static int listing_start(Capsule *c, const char *path, uint64_t answer_max, const Listing *prototype,
                         Fault *reterr) {
        _cleanup_(listing_freep) Listing *l = NULL;
        int r;

        if (!path)
                return fault_errno(reterr->code);
        if (c->manager->n_listings >= LISTINGS_MAX)
                return fault_set(reterr, FAULT_QUOTA_EXCEEDED,
                                 "More than %u lists are being made; try again later.", LISTINGS_MAX);
        l = malloc(sizeof(Listing));
        if (!l)
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        *l = *prototype;
        l->capsule = capsule_ref(c);
        c->manager->n_listings++;
        l->buffer = malloc(l->line_max + 1);
        l->fd = memfd_create("wrenn-list", MFD_CLOEXEC);
        if (l->fd < 0 || !l->buffer)
                return fault_set_errno(reterr, l->buffer ? errno : ENOMEM, "Failed to make a list");
        r = capsule_transfer_start(c,
                                   &(TransferSpec) { .method = "GET",
                                                     .path = path,
                                                     .body_fd = -EBADF,
                                                     .answer_fd = l->fd,
                                                     .bound = true,
                                                     .answer_max = answer_max,
                                                     .timeout_usec = GUEST_REQUEST_USEC },
                                   &transfer_handlers, l, &l->transfer, reterr);
        if (r < 0)
                return r;
        (void) TAKE_PTR(l); /* listing_end()'s */
        return 0;
}

int capsule_list_processes(Capsule *c, ProcessEntryFunc each, CapsuleDone done, void *userdata,
                           Fault *reterr) {
        return listing_start(c, "/processes", AGENT_JSON_MAX,
                             &(Listing) { .line_max = AGENT_JSON_MAX,
                                          .on_line = on_processes_line,
                                          .each_process = each,
                                          .done = done,
                                          .userdata = userdata },
                             reterr);
}

int capsule_list_directory(Capsule *c, const char *path, uint32_t depth, FileEntryFunc each,
                           CapsuleDone done, void *userdata, Fault *reterr) {
        _cleanup_free_ char *request = NULL, *list = NULL;

        if (limit_check_number(&limit_table[LIMIT_FILE_DEPTH], "depth", depth, reterr) < 0)
                return -EINVAL;
        request = capsule_file_request("/files/list", path, reterr);
        list = request ? asprintf_null("%s&depth=%u", request, depth ?: 1) : NULL;
        if (request && !list)
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        return listing_start(c, list, DIRECTORY_ANSWER_MAX,
                             &(Listing) { .line_max = FILE_ENTRY_LINE_MAX,
                                          .entries_max = DIRECTORY_ENTRIES_MAX,
                                          .on_line = on_file_line,
                                          .each_file = each,
                                          .done = done,
                                          .userdata = userdata },
                             reterr);
}

int capsule_stat_path(Capsule *c, const char *path, FileEntryFunc each, CapsuleDone done, void *userdata,
                      Fault *reterr) {
        _cleanup_free_ char *request = capsule_file_request("/files/stat", path, reterr);

        return listing_start(c, request, FILE_ENTRY_LINE_MAX,
                             &(Listing) { .line_max = FILE_ENTRY_LINE_MAX,
                                          .entries_max = 1,
                                          .on_line = on_file_line,
                                          .each_file = each,
                                          .done = done,
                                          .userdata = userdata },
                             reterr);
}
