; run: insert-gates{kind=skim,small=4,exclude=named}
; expect: remark gate-skipped both: left alone, it does not go forward only
; expect: remark gate-skipped small: left alone, a small cell of 4 units beside 4 saves nothing
; expect: remark gate-skipped simple: left alone, only a GRU or an LSTM skims
; expect: remark gate-skipped relus: left alone, its activations are not the usual ones
; expect: remark gate-skipped lengths: left alone, it has lengths
; expect: remark gate-skipped product: left alone, only recurrent layers skim
; expect: remark gate-skipped named: left alone
; expect: no remark gate-done
; expect: ops skim-recurrent == 0
planish-ir 1
graph @"main"(v0 "x": f32[3,2,2], v1 "w4": f32[1,12,2], v2 "r4": f32[1,12,4], v3 "w5": f32[1,15,2], v4 "r5": f32[1,15,5], v5 "ww": f32[2,15,2], v6 "rr": f32[2,15,5], v7 "w1": f32[1,5,2], v8 "r1": f32[1,5,5], v10 "m": f32[2,2]) {
  v9 = const i32[2] [3, 1]
  v11, v12 = recurrent{cell=gru, direction=both, activations=[sigmoid, tanh, sigmoid, tanh], alpha=[0.0, 0.0, 0.0, 0.0], beta=[0.0, 0.0, 0.0, 0.0], clip=none, linear_before_reset=false, input_forget=false} v0, v5, v6 : f32[3,2,2,5], f32[2,2,5] @"both"
  v13, v14 = recurrent{cell=gru, direction=forward, activations=[sigmoid, tanh], alpha=[0.0, 0.0], beta=[0.0, 0.0], clip=none, linear_before_reset=false, input_forget=false} v0, v1, v2 : f32[3,1,2,4], f32[1,2,4] @"small"
  v15, v16 = recurrent{cell=rnn, direction=forward, activations=[tanh], alpha=[0.0], beta=[0.0], clip=none, linear_before_reset=false, input_forget=false} v0, v7, v8 : f32[3,1,2,5], f32[1,2,5] @"simple"
  v17, v18 = recurrent{cell=gru, direction=forward, activations=[sigmoid, relu], alpha=[0.0, 0.0], beta=[0.0, 0.0], clip=none, linear_before_reset=false, input_forget=false} v0, v3, v4 : f32[3,1,2,5], f32[1,2,5] @"relus"
  v19, v20 = recurrent{cell=gru, direction=forward, activations=[sigmoid, tanh], alpha=[0.0, 0.0], beta=[0.0, 0.0], clip=none, linear_before_reset=false, input_forget=false} v0, v3, v4, _, v9 : f32[3,1,2,5], f32[1,2,5] @"lengths"
  v21, v22 = recurrent{cell=gru, direction=forward, activations=[sigmoid, tanh], alpha=[0.0, 0.0], beta=[0.0, 0.0], clip=none, linear_before_reset=false, input_forget=false} v0, v3, v4 : f32[3,1,2,5], f32[1,2,5] @"named"
  v23 = matmul{trans_a=false, trans_b=false} v0, v10 : f32[3,2,2] @"product"
  return v12 "a", v14 "b", v16 "c", v18 "d", v20 "e", v22 "f", v23 "g"
}
