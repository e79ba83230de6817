/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/capsule-view.h"
#include "shared/json-field.h"

typedef enum PropertyType {
        PROPERTY_STRING,
        PROPERTY_U32,
        PROPERTY_U64,
        PROPERTY_MAP,
} PropertyType;

static const struct {
        const char *name;
        PropertyType type;
        size_t offset;
} properties[] = {
        { "Id", PROPERTY_STRING, offsetof(CapsuleView, id) },
        { "Template", PROPERTY_STRING, offsetof(CapsuleView, template) },
        { "Team", PROPERTY_STRING, offsetof(CapsuleView, team) },
        { "State", PROPERTY_STRING, offsetof(CapsuleView, state) },
        { "HostAddress", PROPERTY_STRING, offsetof(CapsuleView, host_address) },
        { "AgentVersion", PROPERTY_STRING, offsetof(CapsuleView, agent_version) },
        { "Isolation", PROPERTY_STRING, offsetof(CapsuleView, isolation) },
        { "Backend", PROPERTY_STRING, offsetof(CapsuleView, backend) },
        { "StatusMessage", PROPERTY_STRING, offsetof(CapsuleView, status_message) },
        { "StatusCode", PROPERTY_STRING, offsetof(CapsuleView, status_code) },
        { "TerminationReason", PROPERTY_STRING, offsetof(CapsuleView, termination_reason) },
        { "Labels", PROPERTY_MAP, offsetof(CapsuleView, labels) },
        { "VCPUs", PROPERTY_U32, offsetof(CapsuleView, vcpus) },
        { "MemoryBytes", PROPERTY_U64, offsetof(CapsuleView, memory_bytes) },
        { "DiskBytes", PROPERTY_U64, offsetof(CapsuleView, disk_bytes) },
        { "TimeoutUSec", PROPERTY_U64, offsetof(CapsuleView, timeout_usec) },
        { "CreatedTimestamp", PROPERTY_U64, offsetof(CapsuleView, created_usec) },
        { "StartedTimestamp", PROPERTY_U64, offsetof(CapsuleView, started_usec) },
        { "LastActiveTimestamp", PROPERTY_U64, offsetof(CapsuleView, last_active_usec) },
        { "LastUpdatedTimestamp", PROPERTY_U64, offsetof(CapsuleView, last_updated_usec) },
};

/* REST knows no transients: they show what was before (api.md §3.1). */
static const struct {
        const char *state, *status;
} statuses[] = {
        { "pending", "pending" },  { "starting", "starting" }, { "running", "running" },
        { "pausing", "running" },  { "paused", "paused" },     { "resuming", "paused" },
        { "stopping", "running" }, { "stopped", "stopped" },   { "error", "error" },
};

int capsule_view_new(const char *path, CapsuleView **ret) {
        _cleanup_(capsule_view_freep) CapsuleView *v = NULL;

        v = calloc(1, sizeof(CapsuleView));
        if (!v)
                return -ENOMEM;
        v->path = strdup(path);
        if (!v->path)
                return -ENOMEM;

        *ret = TAKE_PTR(v);
        return 0;
}

CapsuleView* capsule_view_free(CapsuleView *v) {
        if (!v)
                return NULL;

        for (size_t i = 0; i < ELEMENTSOF(properties); i++) {
                void *field = (char *) v + properties[i].offset;

                if (properties[i].type == PROPERTY_STRING)
                        free(*(char **) field);
                else if (properties[i].type == PROPERTY_MAP)
                        strv_free(*(char ***) field);
        }
        free(v->path);
        free(v->json);
        free(v);
        return NULL;
}

static int read_map(sd_bus_message *m, char ***field) {
        _cleanup_strv_ char **map = NULL;
        const char *name, *value;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{ss}");
        if (r < 0)
                return r;
        while ((r = sd_bus_message_read(m, "{ss}", &name, &value)) > 0) {
                r = strv_extendf(&map, "%s=%s", name, value);
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return r;

        strv_free(*field);
        *field = TAKE_PTR(map);
        return sd_bus_message_exit_container(m);
}

/* The value of one variant, already entered. */
static int read_property(CapsuleView *v, size_t i, sd_bus_message *m) {
        void *field = (char *) v + properties[i].offset;
        const char *s;
        int r;

        switch (properties[i].type) {
        case PROPERTY_STRING:
                r = sd_bus_message_read(m, "s", &s);
                /* the same text stays where it is: the id is a key of tables */
                return r < 0 ? r : streq_ptr(*(char **) field, s) ? 0 : free_and_strdup(field, s);
        case PROPERTY_U32:
                return sd_bus_message_read(m, "u", field);
        case PROPERTY_U64:
                return sd_bus_message_read(m, "t", field);
        case PROPERTY_MAP:
                return read_map(m, field);
        }
        return -EINVAL;
}

static const char* property_signature(PropertyType t) {
        static const char *const signatures[] = {
                [PROPERTY_STRING] = "s",
                [PROPERTY_U32] = "u",
                [PROPERTY_U64] = "t",
                [PROPERTY_MAP] = "a{ss}",
        };
        return signatures[t];
}

static int read_member(CapsuleView *v, sd_bus_message *m) {
        const char *name;
        int r;

        r = sd_bus_message_read(m, "s", &name);
        if (r < 0)
                return r;

        for (size_t i = 0; i < ELEMENTSOF(properties); i++) {
                if (!streq(properties[i].name, name))
                        continue;
                r = sd_bus_message_enter_container(m, 'v', property_signature(properties[i].type));
                if (r < 0)
                        return r;
                r = read_property(v, i, m);
                if (r < 0)
                        return r;
                return sd_bus_message_exit_container(m);
        }
        return sd_bus_message_skip(m, "v");
}

int capsule_view_read(CapsuleView *v, sd_bus_message *m) {
        int r;

        free(v->json);
        v->json = NULL;

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        if (r < 0)
                return r;
        while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = read_member(v, m);
                if (r < 0)
                        return r;
                r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return r;
        return sd_bus_message_exit_container(m);
}

int capsule_view_set_state(CapsuleView *v, const char *state) {
        free(v->json);
        v->json = NULL;
        return free_and_strdup(&v->state, state);
}

bool capsule_view_is_running(const CapsuleView *v) {
        return streq_ptr(v->state, "running");
}

const char* capsule_status_from_state(const char *state) {
        for (size_t i = 0; i < ELEMENTSOF(statuses); i++)
                if (streq_ptr(statuses[i].state, state))
                        return statuses[i].status;
        return "missing";
}

bool capsule_view_is_ended(const CapsuleView *v) {
        return streq_ptr(v->state, "stopped") || streq_ptr(v->state, "error");
}

static int set_string(json_t *object, const char *name, const char *value) {
        if (isempty(value))
                return 0;
        return json_object_set_new(object, name, json_string(value)) < 0 ? -ENOMEM : 0;
}

static int set_number(json_t *object, const char *name, uint64_t value) {
        return json_object_set_new(object, name, json_integer((json_int_t) value)) < 0 ? -ENOMEM : 0;
}

static int set_time(json_t *object, const char *name, uint64_t usec) {
        char buffer[FORMAT_TIME_LEN];

        return usec == 0 ? 0 : set_string(object, name, format_rfc3339(buffer, usec));
}

/* The labels, and what made it: api.md §2.1. */
static int set_metadata(json_t *object, const CapsuleView *v) {
        json_t *metadata;
        int r = 0;

        metadata = json_from_env(v->labels);
        if (!metadata)
                return -ENOMEM;

        r = set_string(metadata, "agent_version", v->agent_version);
        if (r >= 0)
                r = set_string(metadata, "vmm_version", v->backend);
        if (r >= 0 && json_object_size(metadata) > 0)
                r = json_object_set(object, "metadata", metadata) < 0 ? -ENOMEM : 0;
        json_decref(metadata);
        return r;
}

const char* capsule_view_json(CapsuleView *v) {
        _cleanup_json_ json_t *o = NULL;
        int r = 0;

        if (v->json)
                return v->json;

        o = json_object();
        if (!o)
                return NULL;

        /* every setter returns 0 or -ENOMEM: one sum tells all */
        r += set_string(o, "id", v->id);
        r += set_string(o, "status", capsule_status_from_state(v->state));
        r += json_object_set_new(o, "template", json_string(strempty(v->template)));
        r += set_number(o, "vcpus", v->vcpus);
        r += set_number(o, "memory_mb", v->memory_bytes / MIB);
        r += set_number(o, "disk_size_mb", v->disk_bytes / MIB);
        r += set_number(o, "timeout_sec", v->timeout_usec / USEC_PER_SEC);
        r += set_string(o, "host_ip", v->host_address);
        r += set_time(o, "created_at", v->created_usec);
        r += set_time(o, "started_at", v->started_usec);
        r += set_time(o, "last_active_at", v->last_active_usec);
        r += set_time(o, "last_updated", v->last_updated_usec ?: v->created_usec);
        r += set_string(o, "isolation", v->isolation);
        r += set_metadata(o, v);
        if (streq_ptr(v->state, "error"))
                r += set_string(o, "error_message", v->status_message);
        if (r < 0)
                return NULL;

        v->json = json_dumps(o, JSON_COMPACT);
        return v->json;
}
