// What the provider remembers. It outlives a rebuild of the provider, so keys and life times can change under live sessions.

export class Memory {
  constructor() {
    this.models = new Map();
  }

  of(model) {
    if (!this.models.has(model)) this.models.set(model, new Map());
    return this.models.get(model);
  }

  clear() {
    this.models.clear();
  }

  adapter() {
    const memory = this;
    return class {
      constructor(model) {
        this.model = model;
      }

      async upsert(id, payload, expiresIn) {
        const ends = expiresIn ? Date.now() + expiresIn * 1000 : Infinity;
        memory.of(this.model).set(id, { payload, ends });
      }

      async find(id) {
        const found = memory.of(this.model).get(id);
        return found && found.ends > Date.now() ? found.payload : undefined;
      }

      async findBy(name, value) {
        for (const [id, { payload }] of memory.of(this.model)) {
          if (payload[name] === value) return this.find(id);
        }
        return undefined;
      }

      async findByUid(uid) {
        return this.findBy('uid', uid);
      }

      async findByUserCode(userCode) {
        return this.findBy('userCode', userCode);
      }

      async consume(id) {
        const found = memory.of(this.model).get(id);
        if (found) found.payload.consumed = Math.floor(Date.now() / 1000);
      }

      async destroy(id) {
        memory.of(this.model).delete(id);
      }

      async revokeByGrantId(grantId) {
        const rows = memory.of(this.model);
        for (const [id, { payload }] of rows) if (payload.grantId === grantId) rows.delete(id);
      }
    };
  }
}
