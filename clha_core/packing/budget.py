def cut(costs, budget):
    packs = []
    loads = []
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        for k, l in enumerate(loads):
            if l + costs[i] <= budget:
                packs[k].append(i)
                loads[k] += costs[i]
                break
        else:
            packs.append([i])
            loads.append(costs[i])
    return sorted(sorted(p) for p in packs)


def cut_into(costs, count):
    packs = [[] for _ in range(count)]
    loads = [0] * count
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        k = min(range(count), key=lambda k: (len(packs[k]) > 0 and loads[k], k))
        packs[k].append(i)
        loads[k] += costs[i]
    return sorted(sorted(p) for p in packs)
