/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "daemon/bus/bus-server.h"
#include "daemon/core/key.h"

/* Keys are root's and those polkit lets; wrenn-rest, whom polkit is not asked about, may not make itself
 * one. As bus_authorize(). */
static int authorize(BusServer *s, sd_bus_message *m, const char *verb, BusCaller *caller,
                     sd_bus_error *error) {
        const char *const details[] = { "verb", verb, NULL };
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        r = bus_authorize(s, m, "manage-keys", details, caller, error);
        if (r > 0 && caller->uid != 0 && caller->uid == polkit_trusted_uid(s->polkit)) {
                r = fault_set(&fault, FAULT_ACCESS_DENIED, "wrenn-restd may not manage keys.");
                return bus_error_from_fault(error, r, &fault);
        }
        return r;
}

typedef struct KeyOptions {
        char *team;
        char *default_template;
        char **scopes;
} KeyOptions;

static void key_options_done(KeyOptions *o) {
        free(o->team);
        free(o->default_template);
        strv_free(o->scopes);
}

static int reply_secret(sd_bus_message *m, const Key *k, const char *secret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = sd_bus_message_sensitive(reply);
        if (r >= 0)
                r = sd_bus_message_append(reply, "ss", k->id, secret);
        return r < 0 ? r : sd_bus_message_send(reply);
}

static int method_create_key(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        static const BusOption options[] = {
                { "Team", 's', offsetof(KeyOptions, team) },
                { "DefaultTemplate", 's', offsetof(KeyOptions, default_template) },
                { "Scopes", 'S', offsetof(KeyOptions, scopes) },
                {},
        };
        _cleanup_(key_options_done) KeyOptions o = {};
        _cleanup_(bus_caller_done) BusCaller caller = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        char secret[KEY_SECRET_LEN + 1];
        BusServer *s = userdata;
        const char *name;
        Key *k;
        int r;

        r = sd_bus_message_read(m, "s", &name);
        if (r >= 0)
                r = bus_read_options(m, options, &o, /* caller= */ NULL, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);

        r = authorize(s, m, "create", &caller, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = key_create(s->manager, name, o.team, o.default_template, o.scopes, &k, secret, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);
        r = reply_secret(m, k, secret);
        explicit_bzero(secret, sizeof(secret));
        return r;
}

static int append_key(sd_bus_message *reply, const Key *k) {
        return sd_bus_message_append(reply, "a{sv}", 7, "Id", "s", k->id, "Name", "s", k->name, "Team", "s",
                                     k->team, "Prefix", "s", k->prefix, "Created", "t", k->created_usec,
                                     "LastUsed", "t", k->last_used_usec, "DefaultTemplate", "s",
                                     k->default_template);
}

static int compare_created(const void *a, const void *b) {
        const Key *x = *(Key *const *) a, *y = *(Key *const *) b;

        if (x->created_usec != y->created_usec)
                return x->created_usec < y->created_usec ? -1 : 1;
        return strcmp(x->id, y->id);
}

static int reply_keys(sd_bus_message *m, Manager *manager) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_free_ Key **list = calloc(hashmap_size(manager->keys) + 1, sizeof(Key *));
        size_t n = 0;
        Key *k;
        int r;

        if (!list)
                return -ENOMEM;
        HASHMAP_FOREACH(k, manager->keys)
                list[n++] = k;
        qsort(list, n, sizeof(Key *), compare_created);

        r = sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "a{sv}");
        for (size_t i = 0; i < n && r >= 0; i++)
                r = append_key(reply, list[i]);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        return r < 0 ? r : sd_bus_message_send(reply);
}

static int method_list_keys(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(bus_caller_done) BusCaller caller = {};
        BusServer *s = userdata;
        int r;

        r = authorize(s, m, "list", &caller, error);
        if (r <= 0)
                return r < 0 ? r : 1;
        return reply_keys(m, s->manager);
}

static int method_revoke_key(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(bus_caller_done) BusCaller caller = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        BusServer *s = userdata;
        const char *id;
        int r;

        r = sd_bus_message_read(m, "s", &id);
        if (r < 0)
                return r;
        r = authorize(s, m, "revoke", &caller, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = key_revoke(s->manager, id, &fault);
        return r < 0 ? bus_error_from_fault(error, r, &fault) : sd_bus_reply_method_return(m, NULL);
}

static int append_key_options(sd_bus_message *reply, const Key *k) {
        const Config *config = &k->manager->config;

        return sd_bus_message_append(reply, "{sv}{sv}{sv}", "DefaultTemplate", "s", k->default_template,
                                     "PtyFraming", "s", pty_framing_to_string(k->pty_framing),
                                     "DefaultPtyFraming", "s", pty_framing_to_string(config->pty_framing));
}

static int reply_key(sd_bus_message *m, const Key *k) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_strv_ char **scopes = strv_split(k->scopes, " ");
        int r;

        r = sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = sd_bus_message_append(reply, "ss", k->id, k->team);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "{sv}");
        if (r >= 0)
                r = append_key_options(reply, k);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append(reply, "s", "Scopes");
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'v', "as");
        if (r >= 0)
                r = sd_bus_message_append_strv(reply, scopes);
        for (unsigned i = 0; i < 3 && r >= 0; i++)
                r = sd_bus_message_close_container(reply);
        return r < 0 ? r : sd_bus_message_send(reply);
}

/* 1: root or wrenn-restd. 0: not known yet, the message will be dispatched again. */
static int check_front_end(BusServer *s, sd_bus_message *m, Fault *reterr) {
        uid_t uid = UID_UNKNOWN;
        int r;

        r = polkit_sender_uid(s->polkit, m, &uid, reterr);
        if (r > 0 && uid != 0 && (uid == UID_UNKNOWN || uid != polkit_trusted_uid(s->polkit)))
                return fault_set(reterr, FAULT_ACCESS_DENIED, "Only wrenn-restd and root may ask for keys.");
        return r;
}

static int method_authenticate_key(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        BusServer *s = userdata;
        const void *hash;
        size_t n;
        Key *k;
        int r;

        r = sd_bus_message_read_array(m, 'y', &hash, &n);
        if (r < 0)
                return r;
        r = check_front_end(s, m, &fault);
        if (r == 0)
                return 1;
        if (r > 0)
                r = key_authenticate(s->manager, hash, n, &k, &fault);
        return r < 0 ? bus_error_from_fault(error, r, &fault) : reply_key(m, k);
}

typedef struct KeyHints {
        char *pty_framing;
} KeyHints;

static void key_hints_done(KeyHints *h) {
        free(h->pty_framing);
}

static int note_key(Manager *m, const char *id, const KeyHints *h, Fault *reterr) {
        PtyFraming framing;

        if (!h->pty_framing)
                return 0;
        framing = pty_framing_from_string(h->pty_framing);
        if (framing < 0)
                return fault_set(reterr, FAULT_INVALID_ARGS, "PtyFraming: expected 'json' or 'binary'.");
        return key_note_pty_framing(m, id, framing, reterr);
}

static int method_note_key(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        static const BusOption options[] = {
                { "PtyFraming", 's', offsetof(KeyHints, pty_framing) },
                {},
        };
        _cleanup_(key_hints_done) KeyHints hints = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        BusServer *s = userdata;
        const char *id;
        int r;

        r = sd_bus_message_read(m, "s", &id);
        if (r >= 0)
                r = bus_read_options(m, options, &hints, /* caller= */ NULL, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);

        r = check_front_end(s, m, &fault);
        if (r == 0)
                return 1;
        if (r > 0)
                r = note_key(s->manager, id, &hints, &fault);
        return r < 0 ? bus_error_from_fault(error, r, &fault) : sd_bus_reply_method_return(m, NULL);
}

const sd_bus_vtable bus_manager_key_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("CreateKey", SD_BUS_ARGS("s", name, "a{sv}", options),
                                SD_BUS_RESULT("s", id, "s", secret), method_create_key,
                                SD_BUS_VTABLE_UNPRIVILEGED | SD_BUS_VTABLE_SENSITIVE),
        SD_BUS_METHOD_WITH_ARGS("ListKeys", SD_BUS_NO_ARGS, SD_BUS_RESULT("aa{sv}", keys), method_list_keys,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("RevokeKey", SD_BUS_ARGS("s", id), SD_BUS_NO_RESULT, method_revoke_key,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("AuthenticateKey", SD_BUS_ARGS("ay", sha256),
                                SD_BUS_RESULT("s", key_id, "s", team, "a{sv}", options),
                                method_authenticate_key,
                                SD_BUS_VTABLE_UNPRIVILEGED | SD_BUS_VTABLE_SENSITIVE),
        SD_BUS_METHOD_WITH_ARGS("NoteKey", SD_BUS_ARGS("s", key_id, "a{sv}", hints), SD_BUS_NO_RESULT,
                                method_note_key, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_SIGNAL_WITH_ARGS("KeyRevoked", SD_BUS_ARGS("s", key_id), 0),
        SD_BUS_VTABLE_END,
};

void bus_key_revoked(const char *key_id, void *userdata) {
        BusServer *s = userdata;
        int r;

        r = sd_bus_emit_signal(s->bus, BUS_PATH, BUS_NAME ".Manager", "KeyRevoked", "s", key_id);
        if (r < 0)
                (void) log_warning_errno(r, "Failed to tell that key '%s' was revoked: %m", key_id);
}
