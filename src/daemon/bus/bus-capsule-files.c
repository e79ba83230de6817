/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The Capsule interface: files. */

#include <string.h>

#include "basic/strings.h"
#include "config.h"
#include "daemon/bus/bus-capsule.h"
#include "daemon/core/capsule-files.h"
#include "daemon/core/job.h"

#define RENAME_OVERWRITE UINT64_C(1)

/* --- OpenFile -------------------------------------------------------------------------------- */

static void on_file(Capsule *c, int r, int fd, const Fault *fault, void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = userdata;

        if (r < 0)
                bus_reply_fault(m, r, fault);
        else
                (void) sd_bus_reply_method_return(m, "h", fd);
}

static int read_open(sd_bus_message *m, OpenFileSpec *s, Fault *reterr) {
        static const BusOption read_options[] = {
                { "Offset", 't', offsetof(OpenFileSpec, offset) },
                { "Length", 't', offsetof(OpenFileSpec, length) },
                {},
        };
        static const BusOption write_options[] = {
                { "Mode", 'u', offsetof(OpenFileSpec, mode) },
                {},
        };
        const char *mode;
        int r;

        r = sd_bus_message_read(m, "ss", &s->path, &mode);
        if (r < 0)
                return r;
        if (!streq(mode, "r") && !streq(mode, "w"))
                return fault_set(reterr, FAULT_INVALID_ARGS, "mode: expected 'r' or 'w'.");
        s->write = *mode == 'w';
        return bus_read_options(m, s->write ? write_options : read_options, s, NULL, reterr);
}

static int method_open_file(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        OpenFileSpec spec = {};
        Capsule *c = userdata;
        int r;

        r = read_open(m, &spec, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);
        r = bus_capsule_allow(m, c, spec.write ? "write-files" : "read-files", error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = capsule_open_file(c, &spec, on_file, m, &fault);
        return bus_capsule_wait(m, r, &fault, error);
}

/* --- ListDirectory, StatPath ----------------------------------------------------------------- */

static int append_string(sd_bus_message *m, const char *name, const char *value) {
        return sd_bus_message_append(m, "{sv}", name, "s", strempty(value));
}

/* Only where the path is none that a string can hold. */
static int append_path_bytes(sd_bus_message *m, const char *base64) {
        _cleanup_free_ void *data = NULL;
        size_t n;
        int r;

        if (!base64)
                return 0;
        r = base64_decode(base64, strlen(base64), &data, &n);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", "PathBytes");
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'v', "ay");
        if (r >= 0)
                r = sd_bus_message_append_array(m, 'y', data, n);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int append_entry(sd_bus_message *m, const FileEntry *e) {
        int r;

        r = sd_bus_message_open_container(m, 'a', "{sv}");
        if (r >= 0)
                r = append_string(m, "Name", e->name);
        if (r >= 0)
                r = append_string(m, "Path", e->path);
        if (r >= 0)
                r = append_path_bytes(m, e->path_base64);
        if (r >= 0)
                r = append_string(m, "Type", e->type);
        if (r >= 0)
                r = sd_bus_message_append(m, "{sv}{sv}{sv}", "Size", "t", e->size, "Mode", "u", e->mode,
                                          "ModifiedAt", "t", e->modified_sec);
        if (r >= 0)
                r = append_string(m, "Permissions", e->permissions);
        if (r >= 0)
                r = append_string(m, "Owner", e->owner);
        if (r >= 0)
                r = append_string(m, "Group", e->group);
        if (r >= 0 && e->symlink_target)
                r = append_string(m, "SymlinkTarget", e->symlink_target);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int on_entry(const FileEntry *e, void *userdata) {
        return append_entry(((BusList *) userdata)->reply, e);
}

static int method_list_directory(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(bus_list_freep) BusList *list = NULL;
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c = userdata;
        const char *path;
        uint32_t depth;
        int r;

        r = sd_bus_message_read(m, "su", &path, &depth);
        if (r < 0)
                return r;
        r = bus_capsule_allow(m, c, "read-files", error);
        if (r <= 0)
                return r < 0 ? r : 1;
        r = bus_list_new(m, "a{sv}", &list);
        if (r < 0)
                return r;

        r = capsule_list_directory(c, path, depth, on_entry, bus_list_done, list, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);
        (void) TAKE_PTR(list); /* bus_list_done()'s */
        return 1;
}

/* An entry is the answer by itself: sent at once, and the end tells of errors only. */
typedef struct StatAnswer {
        sd_bus_message *call;
        bool answered;
} StatAnswer;

static int on_stat_entry(const FileEntry *e, void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        StatAnswer *a = userdata;
        int r;

        r = sd_bus_message_new_method_return(a->call, &reply);
        if (r >= 0)
                r = append_entry(reply, e);
        if (r >= 0)
                r = sd_bus_message_send(reply);
        a->answered = r >= 0;
        return r < 0 ? r : 0;
}

static void on_stat_done(Capsule *c, int r, const Fault *fault, void *userdata) {
        static const Fault nothing = { .code = FAULT_AGENT,
                                       .message = (char *) "The agent's answer is not valid." };
        StatAnswer *a = userdata;

        if (!a->answered)
                bus_reply_fault(a->call, r < 0 ? r : fault_errno(nothing.code), r < 0 ? fault : &nothing);
        sd_bus_message_unref(a->call);
        free(a);
}

static int method_stat_path(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ StatAnswer *a = NULL;
        Capsule *c = userdata;
        const char *path;
        int r;

        r = sd_bus_message_read(m, "s", &path);
        if (r < 0)
                return r;
        r = bus_capsule_allow(m, c, "read-files", error);
        if (r <= 0)
                return r < 0 ? r : 1;
        a = malloc(sizeof(StatAnswer));
        if (!a)
                return -ENOMEM;
        *a = (StatAnswer) { .call = m };

        r = capsule_stat_path(c, path, on_stat_entry, on_stat_done, a, &fault);
        if (r >= 0)
                (void) TAKE_PTR(a); /* on_stat_done()'s */
        return bus_capsule_wait(m, r, &fault, error);
}

/* --- MakeDirectory, RemovePath, RenamePath --------------------------------------------------- */

static int method_make_directory(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c = userdata;
        const char *path;
        int r;

        r = sd_bus_message_read(m, "s", &path);
        if (r < 0)
                return r;
        r = bus_capsule_allow(m, c, "write-files", error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = capsule_make_directory(c, path, bus_capsule_done, m, &fault);
        return bus_capsule_wait(m, r, &fault, error);
}

static int method_remove_path(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c = userdata;
        const char *path;
        uint64_t flags;
        int r;

        r = sd_bus_message_read(m, "st", &path, &flags);
        if (r < 0)
                return r;
        if (flags != 0) {
                r = fault_set(&fault, FAULT_INVALID_ARGS, "flags: expected 0.");
                return bus_error_from_fault(error, r, &fault);
        }
        r = bus_capsule_allow(m, c, "write-files", error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = capsule_remove_path(c, path, bus_capsule_done, m, &fault);
        return bus_capsule_wait(m, r, &fault, error);
}

static int method_rename_path(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c = userdata;
        const char *from, *to;
        uint64_t flags;
        int r;

        r = sd_bus_message_read(m, "sst", &from, &to, &flags);
        if (r < 0)
                return r;
        if (flags & ~RENAME_OVERWRITE) {
                r = fault_set(&fault, FAULT_INVALID_ARGS, "flags: expected 0 or 1.");
                return bus_error_from_fault(error, r, &fault);
        }
        r = bus_capsule_allow(m, c, "write-files", error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = capsule_rename_path(c, from, to, flags & RENAME_OVERWRITE, bus_capsule_done, m, &fault);
        return bus_capsule_wait(m, r, &fault, error);
}

/* --- CopyTo, CopyFrom ------------------------------------------------------------------------ */

static int reply_job(sd_bus_message *m, Job *j) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = bus_object_path(bus_noun_job.kind, job_name(j), &path);
        return r < 0 ? r : sd_bus_reply_method_return(m, "o", path);
}

static int copy(sd_bus_message *m, Capsule *c, JobKind kind, int fd, const char *path, uint64_t flags,
                sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        bool to = kind == JOB_COPY_TO;
        Job *j;
        int r;

        if (flags != 0) {
                r = fault_set(&fault, FAULT_INVALID_ARGS, "flags: expected 0.");
                return bus_error_from_fault(error, r, &fault);
        }
        r = bus_capsule_allow(m, c, to ? "write-files" : "read-files", error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = to ? job_copy_to(c, fd, path, &j, &fault) : job_copy_from(c, path, fd, &j, &fault);
        return r < 0 ? bus_error_from_fault(error, r, &fault) : reply_job(m, j);
}

static int method_copy_to(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *path;
        uint64_t flags;
        int fd, r;

        r = sd_bus_message_read(m, "hst", &fd, &path, &flags);
        return r < 0 ? r : copy(m, userdata, JOB_COPY_TO, fd, path, flags, error);
}

static int method_copy_from(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *path;
        uint64_t flags;
        int fd, r;

        r = sd_bus_message_read(m, "sht", &path, &fd, &flags);
        return r < 0 ? r : copy(m, userdata, JOB_COPY_FROM, fd, path, flags, error);
}

#define METHOD SD_BUS_VTABLE_UNPRIVILEGED

const sd_bus_vtable bus_capsule_file_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("OpenFile", SD_BUS_ARGS("s", path, "s", mode, "a{sv}", options),
                                SD_BUS_RESULT("h", file), method_open_file, METHOD),
        SD_BUS_METHOD_WITH_ARGS("ListDirectory", SD_BUS_ARGS("s", path, "u", depth),
                                SD_BUS_RESULT("aa{sv}", entries), method_list_directory, METHOD),
        SD_BUS_METHOD_WITH_ARGS("StatPath", SD_BUS_ARGS("s", path), SD_BUS_RESULT("a{sv}", entry),
                                method_stat_path, METHOD),
        SD_BUS_METHOD_WITH_ARGS("MakeDirectory", SD_BUS_ARGS("s", path), SD_BUS_NO_RESULT,
                                method_make_directory, METHOD),
        SD_BUS_METHOD_WITH_ARGS("RemovePath", SD_BUS_ARGS("s", path, "t", flags), SD_BUS_NO_RESULT,
                                method_remove_path, METHOD),
        SD_BUS_METHOD_WITH_ARGS("RenamePath", SD_BUS_ARGS("s", from, "s", to, "t", flags), SD_BUS_NO_RESULT,
                                method_rename_path, METHOD),
        SD_BUS_METHOD_WITH_ARGS("CopyTo", SD_BUS_ARGS("h", tar, "s", dest, "t", flags),
                                SD_BUS_RESULT("o", job), method_copy_to, METHOD),
        SD_BUS_METHOD_WITH_ARGS("CopyFrom", SD_BUS_ARGS("s", src, "h", tar, "t", flags),
                                SD_BUS_RESULT("o", job), method_copy_from, METHOD),
        SD_BUS_VTABLE_END,
};
