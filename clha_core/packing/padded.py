import torch


def padded_token_logps(model, trees):
    seqs = [(t.prompt, r) for t in trees for r in t.responses]
    w = max(len(p) + len(r) for p, r in seqs)
    dev = next(model.parameters()).device
    x = torch.zeros(len(seqs), w, dtype=torch.long)
    a = torch.zeros_like(x)
    m = torch.zeros_like(x, dtype=torch.bool)
    for i, (p, r) in enumerate(seqs):
        n = len(p) + len(r)
        x[i, :n] = torch.tensor(p + r)
        a[i, :n] = 1
        m[i, len(p) : n] = True
    x, a, m = x.to(dev), a.to(dev), m.to(dev)
    lg = model(input_ids=x, attention_mask=a, use_cache=False).logits[:, :-1][m[:, 1:]].float()
    return lg.log_softmax(-1).gather(-1, x[:, 1:][m[:, 1:]].unsqueeze(-1)).squeeze(-1)
